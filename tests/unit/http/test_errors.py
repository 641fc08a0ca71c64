"""The map from errors to HTTP, in both families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from serve_app import errors
from serve_app.errors import (
    ConfigError,
    DeadlineExceeded,
    InvalidInput,
    MethodNotAllowed,
    ModelFailed,
    Overloaded,
    ServeAppError,
    Unavailable,
)
from serve_app.http.errors import as_serve_app_error, error_response, is_openai
from tests.unit.error_tree import build, tree


def answer(error: ServeAppError, path: str) -> tuple[int, dict[bytes, bytes], Any]:
    status, headers, body = error_response(error, path, "id-1")
    described = dict(headers)
    assert len(described) == len(headers)
    assert int(described[b"content-length"]) == len(body)
    return status, described, orjson.loads(body)


@pytest.mark.parametrize("kind", list(tree()))
def test_every_error_has_a_problem_body(kind: type[ServeAppError]) -> None:
    status, headers, body = answer(build(kind, "secret /path"), "/v2/models/x/infer")
    assert status == kind.status
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"x-request-id"] == b"id-1"
    assert body["type"] == f"urn:serve-app:error:{kind.code}"
    assert body["status"] == status
    assert body["error"] == body["detail"]
    assert body["request_id"] == "id-1"
    assert body["retryable"] is kind.retryable
    assert (b"x-should-retry" in headers) is not kind.retryable


@pytest.mark.parametrize("kind", list(tree()))
def test_every_error_has_an_openai_body(kind: type[ServeAppError]) -> None:
    status, headers, body = answer(build(kind, "secret /path"), "/v1/embeddings")
    assert headers[b"content-type"] == b"application/json"
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["code"] == kind.code
    expected = "invalid_request_error" if status < 500 else "server_error"
    assert body["error"]["type"] == expected


@pytest.mark.parametrize("kind", [each for each in tree() if each.status == 500])
def test_a_fault_of_ours_tells_nothing(kind: type[ServeAppError]) -> None:
    for path in ("/v1/x", "/v2/x"):
        assert "secret" not in str(answer(build(kind, "secret /path"), path)[2])


def test_the_field_is_named() -> None:
    error = InvalidInput("wrong", "inputs[0].shape")
    assert answer(error, "/v2")[2]["field"] == "inputs[0].shape"
    assert answer(error, "/v1/x")[2]["error"]["param"] == "inputs[0].shape"
    assert "field" not in answer(InvalidInput("wrong"), "/v2")[2]


def test_what_a_client_sent_comes_back_cut() -> None:
    error = InvalidInput("d" * 1_000_000, "f" * 1_000_000)
    for path in ("/v1/x", "/v2/x"):
        assert len(error_response(error, path, "id-1")[2]) < 3000


def test_what_passes_says_when_to_come_back_with_jitter() -> None:
    error = Overloaded("full")
    error.retry_after_s = 10.0
    seconds = {int(answer(error, "/v2")[1][b"retry-after"]) for _ in range(200)}
    assert min(seconds) >= 10
    assert max(seconds) <= 20
    assert len(seconds) > 3
    assert int(answer(Unavailable(), "/v2")[1][b"retry-after"]) >= 1


def test_only_what_passes_says_when_to_come_back() -> None:
    for error in (DeadlineExceeded("late"), ModelFailed("x"), InvalidInput("x")):
        assert b"retry-after" not in answer(error, "/v2")[1]


def test_methods_and_versions_are_named_in_headers() -> None:
    assert answer(MethodNotAllowed("no", "GET, POST"), "/v2")[1][b"allow"] == b"GET, POST"
    headers = dict(error_response(ModelFailed("x"), "/v2", "i", "7")[1])
    assert headers[b"x-model-version"] == b"7"


@pytest.mark.parametrize(
    ("path", "openai"),
    [("/v1", True), ("/v1/x", True), ("/v10", False), ("/v2/x", False), ("", False), ("*", False)],
)
def test_families(path: str, openai: bool) -> None:
    assert is_openai(path) is openai


def test_what_is_not_for_clients_becomes_an_internal_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for error in (ValueError("secret"), ConfigError("secret")):
        mapped = as_serve_app_error(error, "id-7")
        assert type(mapped) is ServeAppError
        record = caplog.records[-1]
        assert vars(record)["request_id"] == "id-7"
        assert record.exc_info is not None
    known = InvalidInput("x")
    assert as_serve_app_error(known, "id-7") is known
    assert len(caplog.records) == 2


@pytest.mark.parametrize("kind", list(tree()))
def test_the_reference_lists_every_code_with_its_status(kind: type[ServeAppError]) -> None:
    reference = Path(__file__).parents[3] / "docs" / "reference" / "errors.md"
    if issubclass(kind, errors.OperatorError):
        assert f"`{kind.code}`" in reference.read_text()
        return
    row = next(
        line for line in reference.read_text().splitlines() if line.startswith(f"| `{kind.code}` |")
    )
    assert f"| {kind.status} | {kind.grpc_status} |" in row
    if kind.retryable:
        assert "| yes |" in row
