"""Reading bodies: the cap, and JSON that costs more than it weighs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from serve_app.errors import ClientGone, MalformedRequest, PayloadTooLarge
from serve_app.http.body import _outside_strings, load_json, parse_json, read_body


class Source:
    """An ASGI receive channel that counts what was taken from it."""

    def __init__(self, *chunks: bytes, ends: bool = True) -> None:
        self._chunks: Iterator[tuple[int, bytes]] = iter(enumerate(chunks, 1))
        self._count = len(chunks)
        self._ends = ends
        self.taken = 0

    async def __call__(self) -> Any:
        entry = next(self._chunks, None)
        if entry is None:
            return {"type": "http.disconnect"}
        self.taken += 1
        more = entry[0] < self._count or not self._ends
        return {"type": "http.request", "body": entry[1], "more_body": more}


@pytest.mark.parametrize(
    "chunks", [[b""], [b"abc"], [b"a", b"b", b"c"], [b"", b"abc", b""], [b"abc", b""]]
)
async def test_a_body_is_whole_however_it_comes(chunks: list[bytes]) -> None:
    assert await read_body(Source(*chunks), {}, 3) == b"".join(chunks)


async def test_an_announced_length_over_the_cap_is_refused_unread() -> None:
    source = Source(b"abcd")
    with pytest.raises(PayloadTooLarge):
        await read_body(source, {b"content-length": b"4"}, 3)
    assert source.taken == 0


async def test_a_body_that_grows_over_the_cap_is_refused_there() -> None:
    source = Source(*[b"ab"] * 100)
    with pytest.raises(PayloadTooLarge):
        await read_body(source, {}, 3)
    assert source.taken == 2


async def test_a_client_that_leaves_inside_the_body_is_gone() -> None:
    with pytest.raises(ClientGone):
        await read_body(Source(b"ab", ends=False), {}, 10)


def test_density_counts_outside_of_strings_only() -> None:
    heavy = {"text": ":[{" * 1_500_000, "more": ['"', "\\"]}
    assert load_json(orjson.dumps(heavy)) == heavy


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"[]," * 1_100_000 + b"[]]",
        b"[" + b"{}," * 1_100_000 + b"{}]",
        b"[" + b'{"a":1},' * 60_000 + b"{}]",
        b'["' + b"x" * 2_000_000 + b'",' + b'{"a":1},' * 60_000 + b"{}]",
    ],
)
def test_dense_json_is_refused_before_it_is_built(body: bytes) -> None:
    with pytest.raises(PayloadTooLarge):
        load_json(body)


@pytest.mark.parametrize(
    "text",
    [
        b":[" * 2_000_000,
        # Each of these quotation marks would begin a search to the end of the text.
        b':[\\"' * 2_000_000,
        b"\\" * 4_000_001 + b":" * 60_000,
        b":" * 60_000 + b"x" * 1_000_000 + b"\\",
    ],
    ids=["brackets", "escaped quotes", "backslashes", "cut escape"],
)
def test_unterminated_strings_are_no_way_around(text: bytes) -> None:
    with pytest.raises(MalformedRequest):
        load_json(b'["' + text)


@pytest.mark.parametrize("shift", range(5))
def test_a_string_that_the_window_cuts_stays_a_string(shift: int) -> None:
    # Dense enough to be looked over; the first look ends inside the string, also inside an escape.
    text = 'ab:[{\\"' * 400_000
    document = {"x" * shift: text, "more": [1, {"a": ":"}]}
    assert load_json(orjson.dumps(document)) == document


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        (b'{"a":1}', b"{:1}"),
        (b'["a\\"b",1]', b"[,1]"),
        (b'["a\\\\",1]', b"[,1]"),
        (b'["open', b"["),
        (b'["open\\', b"["),
        (b'["open\\"', b"["),
        (b'["a","', b"[,"),
        (b'"', b""),
        (b"", b""),
    ],
)
def test_what_stands_outside_of_strings(text: bytes, bare: bytes) -> None:
    assert _outside_strings(text) == bare


@pytest.mark.parametrize("document", [None, 1, "a", [], {}, [[]], {"a": {"b": [1, {"c": 2}]}}])
def test_documents_within_the_limits(document: Any) -> None:
    assert parse_json(orjson.dumps(document), 5) == document


def test_depth_is_exact() -> None:
    parse_json(b"[[[]]]", 3)
    with pytest.raises(MalformedRequest, match="deeper"):
        parse_json(b"[[[]]]", 2)
    with pytest.raises(MalformedRequest, match="deeper"):
        parse_json(b'{"a":[{"b":[1]}]}', 3)


@pytest.mark.parametrize("body", [b'{"a":1,"a":2}', b'[{"b":{"a":1,"a":":"}}]', b'{"":1,"":1}'])
def test_names_that_stand_twice(body: bytes) -> None:
    with pytest.raises(MalformedRequest, match="twice"):
        parse_json(body, 10)
