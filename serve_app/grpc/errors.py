"""The one map from our error tree to gRPC.

The status message is the text for people. Machines read the trailing metadata: plain keys for
scripts, and google.rpc details in `grpc-status-details-bin` for the libraries that know them.
"""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

from serve_app.errors import ServeAppError
from serve_app.public_error import public_detail, public_field, retry_delay_s, shortened

REQUEST_ID = "x-request-id"
MODEL_VERSION = "x-model-version"
FALLBACK_FROM = "x-model-fallback-from"

Metadata = tuple[tuple[str, str | bytes], ...]

_DOMAIN = "serve-app"
_MAX_TEXT = 250
"""Longest detail that is not ASCII: clients refuse trailers above 8 KiB, and an emoji is escaped
into twelve bytes."""


class Failure(NamedTuple):
    """What an RPC ends with."""

    status: int
    """The number of gRPC's status."""
    detail: str
    trailers: Metadata


def failure(error: ServeAppError, request_id: str, version: str = "") -> Failure:
    """Describes an error.

    Args:
        error: what the request failed with.
        request_id: echoed.
        version: the version that was chosen, if it came that far.
    """
    status = Code.Value(error.grpc_status)
    detail = _detail(error)
    trailers: list[tuple[str, str | bytes]] = [
        ("code", error.code),
        ("retryable", "true" if error.retryable else "false"),
        (REQUEST_ID, request_id),
    ]
    details: list[Message] = [
        ErrorInfo(reason=error.code.upper(), domain=_DOMAIN),
        RequestInfo(request_id=request_id),
    ]
    if version:
        trailers.append((MODEL_VERSION, version))
    field = public_field(error)
    if field is not None:
        trailers.append(("field", field.encode("ascii", "replace").decode()))
        violation = BadRequest.FieldViolation(field=field, description=detail)
        details.append(BadRequest(field_violations=[violation]))
    if error.retryable:
        milliseconds = round(1000 * retry_delay_s(error))
        trailers.append(("retry-after-ms", str(milliseconds)))
        delay = Duration()
        delay.FromMilliseconds(milliseconds)
        details.append(RetryInfo(retry_delay=delay))
    trailers.append(("grpc-status-details-bin", _status(status, detail, details)))
    return Failure(status, detail, tuple(trailers))


def _detail(error: ServeAppError) -> str:
    text = public_detail(error)
    return text if text.isascii() else shortened(text, _MAX_TEXT)


def _status(status: int, detail: str, details: list[Message]) -> bytes:
    packed = []
    for each in details:
        packed.append(Any())
        packed[-1].Pack(each)
    blob: bytes = Status(code=status, message=detail, details=packed).SerializeToString()
    return blob
