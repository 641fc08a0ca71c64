from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.channel.frame import (
    MAGIC,
    MAX_FRAME_BYTES,
    PREFIX,
    VERSION,
    Frame,
    Kind,
    bare_frame,
    read_call,
    read_failure,
    read_greeting,
    read_result,
)
from serve_app.channel.payload import ALIGNMENT, FrameError
from serve_app.channel.stream import FrameReader
from tests.unit.channel.strategies import damaged, frames, joined

SPACE = 256 * 1024


def feed(reader: FrameReader, data: bytes, sizes: Iterator[int]) -> list[Frame]:
    """Gives the reader the stream in pieces of at most these sizes."""
    found: list[Frame] = []
    start = 0
    while start < len(data):
        space = reader.space()
        assert len(space) > 0
        piece = data[start : start + min(next(sizes), len(space))]
        space[: len(piece)] = piece
        found += reader.received(len(piece))
        start += len(piece)
    return found


def forever(size: int) -> Iterator[int]:
    while True:
        yield size


def frame_of(total: int, fill: int = 1) -> bytes:
    """A frame of exactly so many bytes."""
    payload = total - PREFIX.size
    return PREFIX.pack(MAGIC, VERSION, Kind.RESULT, fill, 0, payload) + bytes([fill]) * payload


def content(frame: Frame) -> tuple[Kind, int, bytes, bytes]:
    return frame.kind, frame.call, bytes(frame.header), bytes(frame.payload)


@given(st.lists(frames(), max_size=6), st.lists(st.integers(1, 200), min_size=1))
def test_any_chunking_gives_the_same_frames(each: list[bytes], sizes: list[int]) -> None:
    cycle = (size for _ in forever(0) for size in sizes)
    apart = [content(feed(FrameReader(), data, forever(SPACE))[0]) for data in each]
    assert list(map(content, feed(FrameReader(), joined(each), cycle))) == apart


LARGE = st.sampled_from([16, 17, 1000, SPACE - 16, SPACE - 1, SPACE, SPACE + 1, 3 * SPACE + 5])


@given(
    st.lists(LARGE, min_size=1, max_size=6),
    st.lists(
        st.sampled_from([15, 16, 4097, SPACE - 1, SPACE, 10**6]), min_size=1, max_size=4
    ).filter(lambda sizes: max(sizes) > 1000),
)
def test_frames_around_the_size_of_the_buffer(totals: list[int], sizes: list[int]) -> None:
    stream = [frame_of(total, fill % 250 + 1) for fill, total in enumerate(totals)]
    cycle = (size for _ in forever(0) for size in sizes)
    found = feed(FrameReader(), joined(stream), cycle)
    assert [frame.call for frame in found] == [fill % 250 + 1 for fill in range(len(totals))]
    for frame, total in zip(found, totals, strict=True):
        assert bytes(frame.payload) == bytes([frame.call]) * (total - PREFIX.size)


def test_what_was_handed_out_is_never_written_over() -> None:
    reader = FrameReader()
    kept = []
    for fill in range(1, 50):
        kept += feed(reader, frame_of(30_000 if fill % 5 else 400_000, fill), forever(SPACE))
    assert len(kept) == 49
    assert all(set(bytes(frame.payload)) == {frame.call} for frame in kept)


def test_after_a_large_frame_only_the_small_buffer_is_kept() -> None:
    reader = FrameReader()
    assert len(feed(reader, frame_of(5_000_000), forever(SPACE))) == 1
    assert len(reader.space()) == SPACE
    assert reader.space().nbytes == len(memoryview(reader.space().obj))


@given(st.one_of(st.binary(max_size=300), damaged()), st.integers(1, 100))
def test_any_bytes_give_frames_or_a_frame_error(data: bytes, size: int) -> None:
    reader = FrameReader(max_bytes=1 << 20)
    try:
        found = feed(reader, data, forever(size))
    except FrameError:
        return
    assert len(found) <= len(data) // PREFIX.size
    for frame in found:
        for read in (
            read_greeting,
            read_call,
            read_failure,
            lambda frame: read_result(frame, "direct"),
        ):
            try:
                read(frame)
            except FrameError:
                continue


@pytest.mark.parametrize(
    "prefix",
    [
        b"SB" + bare_frame(Kind.BEAT)[2:],
        b"SA\x02" + bare_frame(Kind.BEAT)[3:],
        b"GET / HTTP/1.1\r\n\r\n",
        PREFIX.pack(MAGIC, VERSION, 0, 0, 0, 0),
        PREFIX.pack(MAGIC, VERSION, 8, 0, 0, 0),
        PREFIX.pack(MAGIC, VERSION, 255, 0, 0, 0),
        PREFIX.pack(MAGIC, VERSION, Kind.CALL, 0, 0, MAX_FRAME_BYTES),
        PREFIX.pack(MAGIC, VERSION, Kind.CALL, 0, 2**32 - 1, 2**32 - 1),
    ],
)
def test_a_prefix_that_makes_no_sense_is_refused_at_once(prefix: bytes) -> None:
    with pytest.raises(FrameError):
        feed(FrameReader(), prefix, forever(SPACE))


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_a_lying_length_takes_no_memory() -> None:
    readers = [FrameReader() for _ in range(3)]
    before = resident_bytes()
    for reader in readers:
        size = MAX_FRAME_BYTES - 2 * PREFIX.size
        lie = PREFIX.pack(MAGIC, VERSION, Kind.CALL, 1, 0, size)
        assert feed(reader, lie + bytes(1000), forever(SPACE)) == []
    assert resident_bytes() - before < 64 << 20


def test_padding_after_the_header_is_no_part_of_anything() -> None:
    prefix = PREFIX.pack(MAGIC, VERSION, Kind.RESULT, 1, 5, 3)
    (frame,) = feed(FrameReader(), prefix + b"12345" + bytes(ALIGNMENT - 5) + b"abc", forever(7))
    assert content(frame) == (Kind.RESULT, 1, b"12345", b"abc")


def test_a_large_frame_is_not_copied() -> None:
    reader = FrameReader()
    assert feed(reader, frame_of(1_000_000)[:SPACE], forever(SPACE)) == []
    own = reader.space()
    (frame,) = feed(reader, frame_of(1_000_000)[SPACE:], forever(SPACE))
    assert frame.payload.obj is own.obj
