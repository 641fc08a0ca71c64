"""What the headers of a call say, read once for all calls that have the same."""

from __future__ import annotations

import re
from typing import NamedTuple

from serve_app.domain.caller import Caller, HttpCaller
from serve_app.domain.traceparent import traceparent
from serve_app.errors import HeadersTooLarge, MalformedRequest, ServeAppError, Unimplemented
from serve_app.grpc.compression import ENCODINGS, IDENTITY
from serve_app.http2.headers import Headers, list_size

_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MEDIA_TYPE = b"application/grpc"


class CallHead(NamedTuple):
    """What a client asks for, and how."""

    path: bytes
    http_status: int
    """200 if this is gRPC; else what a client of something else is told."""
    fault: ServeAppError | None
    """What is wrong with a call that is gRPC."""
    timeout_s: float | None
    """Its deadline, from when it began."""
    encoding: bytes
    """How its message is compressed, if it is."""
    request_id: bytes | None
    """Its `x-request-id`, usable or not: who sent one looks for one in the answer."""
    traceparent: str
    """Its W3C trace context of version 00; empty if it sent none."""
    caller: Caller
    """Its metadata, for releases that ask."""
    size: int
    """What its headers count for."""


def read_head(headers: Headers, max_bytes: int) -> CallHead:
    """Reads a request's headers.

    Args:
        headers: of a valid request; where a name stands twice, the first counts.
        max_bytes: what they may count for.
    """
    fields = dict(reversed(headers))
    size = list_size(headers)
    fault: ServeAppError | None = None
    timeout_s = None
    try:
        if size > max_bytes:
            raise HeadersTooLarge(f"the metadata counts for more than {max_bytes} bytes")
        timeout_s = _timeout_s(fields.get(b"grpc-timeout"))
        encoding = fields.get(b"grpc-encoding", IDENTITY)
        if encoding not in ENCODINGS:
            raise Unimplemented("messages may be compressed by gzip or deflate", "grpc-encoding")
    except ServeAppError as exc:
        fault = exc
        encoding = IDENTITY
    return CallHead(
        fields[b":path"],
        _http_status(fields),
        fault,
        timeout_s,
        encoding,
        fields.get(b"x-request-id"),
        traceparent(fields.get(b"traceparent", b"").decode("latin-1")),
        HttpCaller(fields, b""),
        size,
    )


def _http_status(fields: dict[bytes, bytes]) -> int:
    if fields[b":method"] != b"POST":
        return 405
    media_type = fields.get(b"content-type", b"").lower()
    rest = media_type.removeprefix(_MEDIA_TYPE)
    if rest == media_type or (rest and rest[:1] not in b"+;") or rest.startswith(b"+json"):
        return 415
    return 200


def _timeout_s(given: bytes | None) -> float | None:
    if given is None:
        return None
    match = _TIMEOUT.fullmatch(given)
    if match is None:
        raise MalformedRequest(
            "a timeout has up to eight digits and one of H, M, S, m, u, n", "grpc-timeout"
        )
    return int(match[1]) * _SECONDS[match[2]]
