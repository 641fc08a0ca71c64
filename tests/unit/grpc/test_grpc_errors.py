"""The map from the error tree to gRPC."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

from serve_app.errors import (
    ClusterError,
    InvalidInput,
    ModelFailed,
    ModelNotFound,
    Overloaded,
    ServeAppError,
)
from serve_app.grpc.errors import failure
from serve_app.public_error import public_error
from tests.unit.error_tree import build, tree

SECRET = "/srv/model.py: token abc"


def details(trailers: dict[str, str | bytes]) -> dict[type[Message], Message]:
    blob = trailers["grpc-status-details-bin"]
    assert isinstance(blob, bytes)
    found: dict[type[Message], Message] = {}
    for packed in Status.FromString(blob).details:
        for kind in (ErrorInfo, RequestInfo, RetryInfo, BadRequest):
            if packed.Is(kind.DESCRIPTOR):
                found[kind] = kind.FromString(packed.value)
    return found


@pytest.mark.parametrize("kind", list(tree()))
def test_every_error_has_status_code_and_retryability(kind: type[ServeAppError]) -> None:
    status, detail, trailers = failure(build(kind, "what is wrong"), "rid", "2")
    found = dict(trailers)
    assert status.name == kind.grpc_status
    assert found["code"] == kind.code
    assert found["retryable"] == str(kind.retryable).lower()
    assert found["x-request-id"] == "rid"
    assert found["x-model-version"] == "2"
    assert detail
    blob = found["grpc-status-details-bin"]
    assert isinstance(blob, bytes)
    assert Status.FromString(blob).code == status.value[0]
    assert Status.FromString(blob).message == detail
    assert details(found)[ErrorInfo] == ErrorInfo(reason=kind.code.upper(), domain="serve-app")


def test_the_field_is_named() -> None:
    status, detail, trailers = failure(InvalidInput("is bad", "inputs[0].shape"), "rid")
    found = dict(trailers)
    assert (status, detail) == (grpc.StatusCode.INVALID_ARGUMENT, "is bad")
    assert found["field"] == "inputs[0].shape"
    violation = BadRequest.FieldViolation(field="inputs[0].shape", description="is bad")
    assert details(found)[BadRequest] == BadRequest(field_violations=[violation])
    assert "retry-after-ms" not in found
    assert "x-model-version" not in found


def test_what_passes_says_when_to_come_back() -> None:
    found = dict(failure(Overloaded("full"), "rid").trailers)
    milliseconds = int(found["retry-after-ms"])
    assert 1000 <= milliseconds <= 2000
    assert details(found)[RetryInfo].retry_delay.ToMilliseconds() == milliseconds  # type: ignore[attr-defined]


@pytest.mark.parametrize("error", [ServeAppError(SECRET), ModelFailed(SECRET)])
def test_faults_of_ours_tell_nothing(error: ServeAppError) -> None:
    _, detail, trailers = failure(error, "rid")
    assert SECRET not in detail
    assert SECRET not in repr(trailers)


@pytest.mark.parametrize("exc", [ValueError(SECRET), ClusterError(SECRET)])
def test_what_is_not_for_clients_becomes_an_internal_error(exc: Exception) -> None:
    error = public_error(exc)
    assert (error.code, error.grpc_status) == ("internal", "INTERNAL")
    assert SECRET not in str(error)


def test_an_error_for_clients_stays_itself() -> None:
    error = Overloaded("full")
    assert public_error(error) is error


@pytest.mark.parametrize("name", ["m" * 100_000, "\N{PILE OF POO}" * 100_000])
def test_a_detail_fits_into_trailers(name: str) -> None:
    _, detail, trailers = failure(ModelNotFound(name), "rid")
    escaped = sum(1 if 32 <= byte < 127 else 3 for byte in detail.encode())
    assert escaped + sum(len(key) + len(value) * 4 / 3 for key, value in trailers) < 8000
    assert detail.endswith("…")


def test_a_field_outside_ascii_is_still_valid_metadata() -> None:
    found = dict(failure(InvalidInput("is bad", "inputs[0].\u00fc"), "rid").trailers)
    assert found["field"] == "inputs[0].?"
