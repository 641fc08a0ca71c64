"""What is checked about a request's head as such, and its form for ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import unquote

import httptools
from uvicorn.protocols.utils import get_local_addr, get_remote_addr

from serve_app.config.listener import HttpConfig
from serve_app.errors import HeadersTooLarge, MalformedRequest
from serve_app.http.asgi import Scope

_OVERHEAD = 4
"""Colon, space and line break of a header, which the parser does not report."""
_ASGI = {"version": "3.0", "spec_version": "2.3"}

Headers = Sequence[tuple[bytes, bytes]]


def check_head(url: bytes, headers: Headers, version: str, http: HttpConfig) -> None:
    """Refuses a head that is too large, or of which it could be unclear what it means.

    Args:
        url: the request's target.
        headers: names in lower case, and values.
        version: of HTTP.
        http: the caps.
    """
    if len(headers) > http.max_headers:
        raise HeadersTooLarge(f"more than {http.max_headers} headers")
    size = sum([len(name) + len(value) + _OVERHEAD for name, value in headers])
    if len(url) + size > http.max_header_bytes:
        raise head_too_large(http)
    names = [name for name, _ in headers]
    if version == "1.1":
        if names.count(b"host") != 1:
            raise MalformedRequest("exactly one Host header is needed")
    elif version != "1.0":
        raise MalformedRequest("only HTTP/1.1 and HTTP/1.0 are spoken here")
    for name, value in headers:
        if name == b"transfer-encoding" and value.lower() != b"chunked":
            raise MalformedRequest("only chunked transfer encoding is supported")


def head_too_large(http: HttpConfig) -> HeadersTooLarge:
    """The refusal of a head above the cap."""
    return HeadersTooLarge(f"the head is larger than {http.max_header_bytes} bytes")


def asgi_scope(
    transport: asyncio.Transport, method: bytes, url: bytes, headers: Headers, version: str
) -> Scope:
    """The scope of a request.

    Args:
        transport: of its connection.
        method: in capitals.
        url: the request's target.
        headers: names in lower case, and values.
        version: of HTTP.
    """
    parsed = httptools.parse_url(url)
    path = parsed.path.decode("ascii")
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": version,
        "server": get_local_addr(transport),
        "client": get_remote_addr(transport),
        "scheme": "http",
        "method": method.decode("ascii"),
        "root_path": "",
        "path": unquote(path) if "%" in path else path,
        "raw_path": parsed.path,
        "query_string": parsed.query or b"",
        "headers": list(headers),  # trailers would come to the other one
        "state": {},
    }
