"""Cuts what a client sends into frames, wherever the network cut it."""

from __future__ import annotations

from serve_app.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEAD,
    HEAD_SIZE,
    HEADERS,
    LARGEST_NUMBER,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    Buffer,
    ConnectionFault,
    ErrorCode,
)
from serve_app.http2.limits import Limits

_OF_STREAMS = frozenset({DATA, HEADERS, PRIORITY, RST_STREAM, CONTINUATION})
_OF_CONNECTIONS = frozenset({SETTINGS, PING, GOAWAY})
_OF_BLOCKS = frozenset({HEADERS, CONTINUATION})
_UNREAD = frozenset({PRIORITY, GOAWAY})
"""A client that goes away says so by closing its streams, or the connection."""
_SIZES = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
_MAX_SETTINGS_BYTES = 64 * 6
_PRIORITY_SIZE = 5
_COPIED = 16 * 1024
"""Pieces of data up to this size are copied out of what was read; larger ones are views."""


class FrameReader:
    """Hands on the payload of DATA as it comes, and all other frames when they are complete."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._rest = bytearray()  # the beginning of a frame, or of the preface
        self._need = 0  # so long must it be before it is worth a look
        self._waits = 0  # how often something had to be waited for
        self._opened = False
        self._stream = 0  # whose data is being read
        self._left = 0  # bytes to come of it in this frame
        self._last = False  # whether its stream ends with them
        self._skip = 0  # bytes to come that nobody reads: padding, unknown frames
        self._block_of = 0  # the stream whose header block goes on in the next frame
        self._block: list[bytes] = []
        self._block_size = 0
        self._block_last = False

    # What is read

    def on_data_frame(self, stream: int, length: int) -> None:
        """DATA begins; `length` counts against the windows."""
        raise NotImplementedError

    def on_data(self, stream: int, piece: Buffer) -> None:
        """A piece of its payload; unless it is `bytes`, it is valid during this call only."""
        raise NotImplementedError

    def on_data_end(self, stream: int, last: bool) -> None:
        """Its payload is complete, and with it perhaps the stream."""
        raise NotImplementedError

    def on_block(self, stream: int, block: bytes, last: bool) -> None:
        """A header block is complete, and with it perhaps the stream."""
        raise NotImplementedError

    def on_control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """RST_STREAM, SETTINGS, PING or WINDOW_UPDATE."""
        raise NotImplementedError

    # How

    @property
    def unfinished(self) -> int:
        """Which frame, header block or preface has begun and not ended; 0 if none has.

        The payload of DATA does not count: it is the stream's to wait for.
        """
        return self._waits if self._rest or self._block_of or not self._opened else 0

    def read(self, data: bytes) -> None:
        """Takes what came.

        Raises:
            ConnectionFault: it breaks the protocol.
        """
        if self._rest:
            self._rest += data
            if len(self._rest) < self._need:
                return
            data = bytes(self._rest)
            self._rest.clear()
        position = 0
        if not self._opened:
            if not self._open(data):
                self._rest += data
                return
            position = len(PREFACE)
        position, self._need = self._frames(data, position)
        if position < len(data):
            self._rest += memoryview(data)[position:]
            if not self._block_of:  # which would be waited for as a whole
                self._waits += 1

    def _frames(self, data: bytes, position: int) -> tuple[int, int]:
        """Reads what is complete; returns where the rest begins, and how long it must become."""
        end = len(data)
        while True:
            if self._left:
                position = self._take(data, position)
            if self._skip and not self._left:
                step = min(self._skip, end - position)
                self._skip -= step
                position += step
            start = position + HEAD_SIZE
            if start > end:
                return position, HEAD_SIZE
            high, low, kind, flags, stream = HEAD.unpack_from(data, position)
            length = high << 8 | low
            stream &= LARGEST_NUMBER
            self._check(kind, flags, stream, length)
            stop = start + length
            if kind == DATA:
                if flags & PADDED and start == end:
                    return position, HEAD_SIZE + 1
                position = self._begin_data(data, start, flags, stream, length)
            elif kind in _UNREAD or kind > CONTINUATION:
                position = start
                self._skip = length
            elif stop > end:
                return position, HEAD_SIZE + length
            else:
                position = stop
                payload = data[start:stop]
                if kind == HEADERS:
                    self._begin_block(flags, stream, payload)
                elif kind == CONTINUATION:
                    self._go_on(flags, payload)
                else:
                    self.on_control(kind, flags, stream, payload)

    def _open(self, data: bytes) -> bool:
        """Whether the preface is complete, and SETTINGS follow it as they must."""
        size = len(PREFACE)
        if data[:size] != PREFACE[: len(data)]:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "this is not HTTP/2")
        if len(data) < size + HEAD_SIZE:
            return False
        _, _, kind, flags, _ = HEAD.unpack_from(data, size)
        if kind != SETTINGS or flags & ACK:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS must come first")
        self._opened = True
        return True

    def _check(self, kind: int, flags: int, stream: int, length: int) -> None:
        """Refuses a frame by its head, before its payload is waited for."""
        if length > self._limits.max_frame_size:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "the frame is too large")
        if (kind == CONTINUATION or self._block_of) and (
            kind != CONTINUATION or stream != self._block_of
        ):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block is in disorder")
        if kind in _OF_STREAMS if not stream else kind in _OF_CONNECTIONS:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame is on the wrong stream")
        if kind in _OF_BLOCKS:
            if self._block_size + length > self._limits.max_block_bytes:
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "headers too large")
        elif kind == PUSH_PROMISE:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "clients do not push")
        elif kind == SETTINGS:
            if length % 6 or (flags & ACK and length):
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "settings in pieces")
            if length > _MAX_SETTINGS_BYTES:
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many settings")
        elif length != _SIZES.get(kind, length) or (kind == GOAWAY and length < 8):
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a frame of the wrong size")

    # DATA

    def _begin_data(self, data: bytes, start: int, flags: int, stream: int, length: int) -> int:
        """Reads the head of a frame of DATA; returns where its payload begins."""
        padding = 0
        left = length
        if flags & PADDED:
            if not length or data[start] >= length:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
            padding = data[start]
            left -= 1 + padding
            start += 1
        self.on_data_frame(stream, length)
        self._stream = stream
        self._last = flags & END_STREAM != 0
        self._skip = padding
        self._left = left
        if not left:
            self.on_data_end(stream, self._last)
        return start

    def _take(self, data: bytes, position: int) -> int:
        """Hands on what has come of the payload; returns where it ends."""
        size = min(self._left, len(data) - position)
        if not size:
            return position
        stop = position + size
        self._left -= size
        if size <= _COPIED:
            self.on_data(self._stream, data[position:stop])
        else:
            self.on_data(self._stream, memoryview(data)[position:stop])
        if not self._left:
            self.on_data_end(self._stream, self._last)
        return stop

    # Header blocks

    def _begin_block(self, flags: int, stream: int, payload: bytes) -> None:
        start, stop = 0, len(payload)
        if flags & (PADDED | WITH_PRIORITY):
            if flags & PADDED:
                stop -= payload[0] if payload else 1
                start = 1
            if flags & WITH_PRIORITY:
                start += _PRIORITY_SIZE
            if stop < start:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
            payload = payload[start:stop]
        last = flags & END_STREAM != 0
        if flags & END_HEADERS:
            self.on_block(stream, payload, last)
            return
        self._block_of = stream
        self._waits += 1
        self._block_last = last
        self._block = [payload]
        self._block_size = len(payload)

    def _go_on(self, flags: int, payload: bytes) -> None:
        self._block.append(payload)
        self._block_size += len(payload) + HEAD_SIZE
        if flags & END_HEADERS:
            stream, block = self._block_of, b"".join(self._block)
            self._block_of = self._block_size = 0
            self._block = []
            self.on_block(stream, block, self._block_last)
