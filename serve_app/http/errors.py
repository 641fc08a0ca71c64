"""The one map from our error tree to HTTP, for both families of paths.

`/v1` speaks OpenAI's error object, everything else RFC 9457 problem+json with OIP's `error`
member. The family is read from the path before any routing, so that a 404, a 405 or a broken
header block has the right shape too.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import orjson

from serve_app.errors import MethodNotAllowed, ServeAppError, Unavailable
from serve_app.public_error import public_detail, public_error, public_field, retry_delay_s

logger = logging.getLogger(__name__)

Headers = list[tuple[bytes, bytes]]

PROBLEM_JSON = (b"content-type", b"application/problem+json")
JSON = (b"content-type", b"application/json")
NO_RETRY = (b"x-should-retry", b"false")
REQUEST_ID = b"x-request-id"
FALLBACK_FROM = b"x-model-fallback-from"
"""The version that was chosen, where another one answered."""


def is_openai(path: str) -> bool:
    """Whether a path belongs to the OpenAI family."""
    return path.startswith("/v1/") or path == "/v1"


def error_type(error: ServeAppError) -> str:
    """The stable URI that names a kind of error."""
    return f"urn:serve-app:error:{error.code}"


def error_response(
    error: ServeAppError, path: str, request_id: str, version: str = ""
) -> tuple[int, Headers, bytes]:
    """The answer to a request that failed.

    Args:
        error: what it failed with.
        path: the request's path, which decides the shape of the body.
        request_id: echoed in the body and in a header.
        version: the version that was chosen, if it came that far.

    Returns:
        Status, headers and body.
    """
    openai = is_openai(path)
    body = orjson.dumps(_openai(error) if openai else _problem(error, request_id))
    headers = [
        JSON if openai else PROBLEM_JSON,
        (b"content-length", str(len(body)).encode()),
        (REQUEST_ID, request_id.encode()),
    ]
    if version:
        headers.append((b"x-model-version", version.encode()))
    if isinstance(error, Unavailable):
        headers.append((b"retry-after", _retry_after(error)))
    if not error.retryable:
        headers.append(NO_RETRY)
    if isinstance(error, MethodNotAllowed) and error.allow:
        headers.append((b"allow", error.allow.encode()))
    return error.status, headers, body


def _problem(error: ServeAppError, request_id: str) -> dict[str, Any]:
    detail = public_detail(error)
    problem = {
        "type": error_type(error),
        "title": error.title,
        "status": error.status,
        "detail": detail,
        "error": detail,
        "code": error.code,
        "request_id": request_id,
        "retryable": error.retryable,
    }
    field = public_field(error)
    if field is not None:
        problem["field"] = field
    return problem


def _openai(error: ServeAppError) -> dict[str, Any]:
    return {
        "error": {
            "message": public_detail(error),
            "type": "invalid_request_error" if error.status < 500 else "server_error",
            "param": public_field(error),
            "code": error.code,
        }
    }


def _retry_after(error: Unavailable) -> bytes:
    """Whole seconds, at least one."""
    return str(max(1, math.ceil(retry_delay_s(error)))).encode()


def as_serve_app_error(exc: Exception, request_id: str) -> ServeAppError:
    """What a client may know of a failure; the rest goes to the log, under the request id."""
    error = public_error(exc)
    if error is not exc:
        logger.error(
            "request failed", extra={"action": "request", "request_id": request_id}, exc_info=exc
        )
    return error
