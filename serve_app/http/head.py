"""What the request's headers say: deadline, media type, encoding, trace context."""

from __future__ import annotations

import re
from collections.abc import Mapping

from serve_app.domain.traceparent import traceparent
from serve_app.errors import MalformedRequest, UnsupportedMediaType

_MILLISECONDS = re.compile(rb"[0-9]{1,9}")

MEDIA_TYPES = frozenset(
    {
        b"application/json",
        b"application/octet-stream",
        b"application/x-www-form-urlencoded",
    }
)
"""Accepted as the type of a body. The last one is what curl sends when nobody says otherwise."""


def header_timeout_s(headers: Mapping[bytes, bytes]) -> float | None:
    """The deadline that the client asks for in `x-request-timeout-ms`."""
    value = headers.get(b"x-request-timeout-ms")
    if value is None:
        return None
    milliseconds = int(value) if _MILLISECONDS.fullmatch(value) is not None else 0
    if milliseconds == 0:
        raise MalformedRequest(
            "x-request-timeout-ms must be a positive whole number of milliseconds",
            "x-request-timeout-ms",
        )
    return milliseconds / 1000.0


def trace_context(headers: Mapping[bytes, bytes]) -> str:
    """The W3C trace context that the client sent; empty if it is none."""
    value = headers.get(b"traceparent")
    return "" if value is None else traceparent(value.decode("latin-1"))


def check_media_type(headers: Mapping[bytes, bytes]) -> None:
    """Refuses a body that we cannot read by its type or encoding."""
    media_type = headers.get(b"content-type")
    if media_type is not None and media_type not in MEDIA_TYPES:
        essence = media_type.partition(b";")[0].strip().lower()
        if essence not in MEDIA_TYPES:
            raise UnsupportedMediaType(
                "the body must be application/json or application/octet-stream"
            )
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
        raise UnsupportedMediaType("compressed bodies are not supported: send them as they are")


def shortest(*timeouts_s: float | None) -> float | None:
    """The smallest of the deadlines that were given."""
    return min((each for each in timeouts_s if each is not None), default=None)
