"""Reading a request's body, never more than the cap, and its JSON, never deeper than the limit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from serve_app.errors import ClientGone, MalformedRequest, PayloadTooLarge
from serve_app.http.asgi import Receive

_LARGE = 256 * 1024
"""Bodies above this size are looked over before they are parsed."""
_WINDOW = 4 * _LARGE
_MAX_CONTAINERS = 1_000_000
_MAX_MEMBERS = 50_000
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
"""A string, also one that the text's end cuts: a pattern that failed there would be tried again at
every quotation mark inside, which takes the square of the length."""


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], cap: int) -> bytes:
    """Reads the whole body.

    Raises:
        PayloadTooLarge: it is announced as, or turns out, larger than `cap`.
        ClientGone: the client went away before its end.
    """
    announced_length(headers, cap)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the client closed the connection inside the body")
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > cap:
            raise body_too_large(cap)
        if not message.get("more_body", False):
            break
        chunks.append(chunk)
    if not chunks:
        return chunk
    chunks.append(chunk)
    return b"".join(chunks)


def announced_length(headers: Mapping[bytes, bytes], cap: int) -> int:
    """The length that the head announces, 0 if it does not.

    Raises:
        PayloadTooLarge: it is larger than `cap`.
    """
    announced = headers.get(b"content-length")
    if announced is None or not announced.isdigit():
        return 0
    length = int(announced)
    if length > cap:
        raise body_too_large(cap)
    return length


def body_too_large(cap: int) -> PayloadTooLarge:
    """The refusal of a body above the cap."""
    return PayloadTooLarge(f"the body is larger than the allowed {cap} bytes")


def load_json(body: bytes) -> Any:
    """Parses JSON; what it holds is checked by `check_members` or by the caller.

    orjson refuses NaN, Infinity, numbers beyond double, lone surrogates, byte order marks and
    nesting beyond 1024 levels. Its cost in memory is bounded here: a body of nothing but empty
    arrays would otherwise cost twenty times its size.
    """
    if len(body) > _LARGE:
        _check_density(body)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise MalformedRequest(f"the body is not valid JSON: {exc}") from exc


def _check_density(body: bytes) -> None:
    if _containers(body) <= _MAX_CONTAINERS and body.count(b":") <= _MAX_MEMBERS:
        return
    # Most bodies that are too dense are so from their beginning; looking there is cheap.
    for part in (body[:_WINDOW], body):
        bare = _outside_strings(part)
        if _containers(bare) > _MAX_CONTAINERS:
            raise PayloadTooLarge(f"more than {_MAX_CONTAINERS} JSON arrays and objects")
        if bare.count(b":") > _MAX_MEMBERS:
            raise PayloadTooLarge(f"more than {_MAX_MEMBERS} members of JSON objects")


def _outside_strings(text: bytes) -> bytes:
    """What stands outside of strings; a string that does not end swallows the rest."""
    return _STRINGS.sub(b"", text)


def _containers(body: bytes) -> int:
    return body.count(b"[") + body.count(b"{")


def check_members(body: bytes, document: Any, max_depth: int) -> None:
    """Refuses nesting beyond `max_depth`, and a name that stands twice in one object.

    Two readers of one document may disagree on which of two equal names counts; orjson takes the
    last and says nothing. Colons outside of strings tell how many members were written.

    Args:
        body: the document as it was sent.
        document: the document as it was parsed.
        max_depth: levels of arrays and objects that are allowed.
    """
    members = 0
    depth = 0
    level: list[Any] = [document] if type(document) in (dict, list) else []
    while level:
        depth += 1
        if depth > max_depth:
            raise MalformedRequest(f"JSON is nested deeper than the allowed {max_depth} levels")
        below: list[Any] = []
        for each in level:
            values = each
            if type(each) is dict:
                members += len(each)
                values = list(each.values())
            below.extend([value for value in values if type(value) in (dict, list)])
        level = below
    written = body.count(b":")
    if written != members and _outside_strings(body).count(b":") != members:
        raise MalformedRequest("a name stands twice in one JSON object")


def parse_json(body: bytes, max_depth: int) -> Any:
    """Parses JSON with every check, for routes that are not hot."""
    document = load_json(body)
    check_members(body, document, max_depth)
    return document
