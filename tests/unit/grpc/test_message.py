"""Messages out of pieces, and out of compression."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import MalformedRequest, PayloadTooLarge
from serve_app.grpc.compression import inflate
from serve_app.grpc.message import MessageReader

CAP = 1000


def framed(message: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


def read(*pieces: bytes) -> bytes:
    reader = MessageReader(CAP)
    for piece in pieces:
        reader.feed(memoryview(piece))
    return bytes(reader.finish())


@given(st.binary(max_size=40), st.lists(st.integers(0, 45), max_size=6))
def test_however_it_is_cut(message: bytes, cuts: list[int]) -> None:
    data = framed(message)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[start:stop] for start, stop in pairwise(edges)]
    assert read(*pieces) == message


@pytest.mark.parametrize(
    "pieces",
    [(), (b"",), (b"\0\0\0\0",), (b"\0\0\0\0\2a",), (framed(b"ab"), b"c"), (b"\2\0\0\0\0",)],
)
def test_what_is_no_message(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(MalformedRequest):
        read(*pieces)


def test_two_messages() -> None:
    with pytest.raises(MalformedRequest):
        read(framed(b"a") + framed(b"b"))


def test_the_cap_is_kept_before_the_message_has_come() -> None:
    assert read(framed(b"x" * CAP)) == b"x" * CAP
    with pytest.raises(PayloadTooLarge):
        read(framed(b"x" * (CAP + 1))[:5])


@pytest.mark.parametrize(
    ("encoding", "compress"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)]
)
def test_inflating(encoding: bytes, compress: object) -> None:
    assert callable(compress)
    message = bytes(range(256)) * 3
    assert inflate(compress(message), encoding, len(message)) == message
    assert inflate(compress(b""), encoding, 10) == b""
    with pytest.raises(PayloadTooLarge):
        inflate(compress(message), encoding, len(message) - 1)
    for broken in (compress(message)[:-1], compress(message) + b"x", b"", b"junk"):
        with pytest.raises(MalformedRequest):
            inflate(broken, encoding, CAP)


def test_a_bomb_costs_no_more_than_the_cap() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    tracemalloc.start()
    with pytest.raises(PayloadTooLarge):
        inflate(bomb, b"gzip", 1_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000


def test_compressed_without_saying_how() -> None:
    with pytest.raises(MalformedRequest):
        inflate(gzip.compress(b"a"), b"identity", CAP)
