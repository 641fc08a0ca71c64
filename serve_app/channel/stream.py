"""Cutting a stream of bytes into frames."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from serve_app.channel.frame import (
    MAGIC,
    MAX_FRAME_BYTES,
    PREFIX,
    VERSION,
    Frame,
    Kind,
)
from serve_app.channel.payload import ALIGNMENT, FrameError
from serve_app.domain.raw_tensor import Buffer


class FrameReader:
    """Cuts a stream into frames; the bytes are received straight into its buffer.

    A frame that fits into the buffer is copied out of it once; a larger one gets a buffer of its
    own, so that its tensors are never copied.

    Args:
        max_bytes: a longer frame is refused before anything is allocated for it.
    """

    _SPACE = 256 * 1024

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_bytes = max_bytes
        self._shared = memoryview(bytearray(self._SPACE))
        self._buffer = self._shared
        self._start = 0
        self._end = 0

    def space(self) -> memoryview:
        """Where the next bytes belong; never empty."""
        return self._buffer[self._end :]

    def received(self, count: int) -> Iterator[Frame]:
        """Takes so many bytes, which stand in `space` now; yields the frames that are complete.

        Raises:
            FrameError: the stream makes no sense; nothing more can be read from it.
        """
        self._end += count
        while self._end - self._start >= PREFIX.size:
            kind, call, header, size, total = self._prefix()
            if self._end - self._start < total:
                self._make_room(total)
                return
            yield self._cut(kind, call, header, size, total)
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == len(self._buffer):
            self._make_room(PREFIX.size)

    def _prefix(self) -> tuple[Kind, int, int, int, int]:
        magic, version, kind, call, header, size = PREFIX.unpack_from(self._buffer, self._start)
        if magic != MAGIC or version != VERSION:
            raise FrameError(f"not a frame of version {VERSION}")
        total = PREFIX.size + header + -header % ALIGNMENT + size
        if total > self._max_bytes:
            raise FrameError(f"a frame of {total} bytes; at most {self._max_bytes} are allowed")
        try:
            return Kind(kind), call, header, size, total
        except ValueError as exc:
            raise FrameError(f"a frame of the unknown kind {kind}") from exc

    def _cut(self, kind: Kind, call: int, header: int, size: int, total: int) -> Frame:
        if self._buffer is self._shared:
            # The buffer is written over; what is handed out must not be.
            data = memoryview(bytes(self._buffer[self._start : self._start + total]))
            self._start += total
        else:  # exactly this frame
            data = self._buffer
            self._use(self._shared)
        begin = PREFIX.size
        return Frame(kind, call, data[begin : begin + header], data[total - size :])

    def _make_room(self, total: int) -> None:
        """Makes sure that a frame of this length fits in behind its first bytes."""
        kept = self._buffer[self._start : self._end]
        if total > len(self._shared):
            if self._buffer is self._shared:
                # Not a bytearray, which writes zeros over it first: a length that lies would take
                # as much memory, and 20 MB would take 7.7 ms to receive instead of 1.8.
                self._use(np.empty(total, np.uint8).data, kept)
        elif self._start + total > len(self._shared):
            self._use(self._shared, bytes(kept))

    def _use(self, buffer: memoryview, kept: Buffer = b"") -> None:
        self._buffer = buffer
        buffer[: len(kept)] = kept
        self._start, self._end = 0, len(kept)
