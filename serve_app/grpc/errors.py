"""The one map from our error tree to gRPC.

The status message is the text for people. Machines read the trailing metadata: plain keys for
scripts, and google.rpc details in `grpc-status-details-bin` for the libraries that know them.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

from serve_app.errors import ModelFailed, OperatorError, ServeAppError

REQUEST_ID = "x-request-id"
MODEL_VERSION = "x-model-version"

OK = "ok"
"""The code of a request that went well, for telemetry."""

Metadata = tuple[tuple[str, str | bytes], ...]

_DOMAIN = "serve-app"
_MAX_ASCII, _MAX_TEXT = 1000, 250
"""Longest detail. Clients refuse trailers above 8 KiB; an emoji is escaped into twelve bytes."""


class Failure(NamedTuple):
    """What an RPC is aborted with."""

    status: grpc.StatusCode
    detail: str
    trailers: Metadata


def public(error: Exception) -> ServeAppError:
    """The error that a client may see in place of one that was raised."""
    if isinstance(error, ServeAppError) and not isinstance(error, OperatorError):
        return error
    return ServeAppError()


def failure(error: ServeAppError, request_id: str, version: str = "") -> Failure:
    """Describes an error.

    Args:
        error: what the request failed with.
        request_id: echoed.
        version: the version that was chosen, if it came that far.
    """
    status = grpc.StatusCode[error.grpc_status]
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
    if error.field is not None:
        trailers.append(("field", error.field.encode("ascii", "replace").decode()))
        violation = BadRequest.FieldViolation(field=error.field, description=detail)
        details.append(BadRequest(field_violations=[violation]))
    if error.retryable:
        milliseconds = _retry_after_ms(error)
        trailers.append(("retry-after-ms", str(milliseconds)))
        delay = Duration()
        delay.FromMilliseconds(milliseconds)
        details.append(RetryInfo(retry_delay=delay))
    trailers.append(("grpc-status-details-bin", _status(status, detail, details)))
    return Failure(status, detail, tuple(trailers))


def _detail(error: ServeAppError) -> str:
    """The text that a client may read.

    A fault of ours tells nothing: its text may hold what came from model code or from a library.
    """
    if isinstance(error, ModelFailed):
        return "the model could not compute this request"
    if error.status == 500:
        return "internal error; the request id leads to its log entry"
    text = str(error)
    longest = _MAX_ASCII if text.isascii() else _MAX_TEXT
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _retry_after_ms(error: ServeAppError) -> int:
    """Spread, so that refused clients do not come back together."""
    least = error.retry_after_s or 1.0
    return round(1000 * random.uniform(least, 2 * least))


def _status(status: grpc.StatusCode, detail: str, details: list[Message]) -> bytes:
    packed = []
    for each in details:
        packed.append(Any())
        packed[-1].Pack(each)
    blob: bytes = Status(code=status.value[0], message=detail, details=packed).SerializeToString()
    return blob
