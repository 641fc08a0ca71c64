"""A connection over a transport that only remembers, and an application that echoes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hpack import Encoder

from serve_app.http2 import frames
from serve_app.http2.application import Application
from serve_app.http2.connection import Http2Connection
from serve_app.http2.frames import HEAD, HEAD_SIZE, PREFACE, Buffer, ErrorCode, frame
from serve_app.http2.headers import Headers, encode_headers
from serve_app.http2.limits import Limits
from serve_app.http2.outlet import Outlet
from serve_app.http2.state import Http2State
from serve_app.http2.stream import Stream
from tests.unit.http.wire import FakeTransport

LIMITS = Limits(max_connections=10, max_streams=10_000, max_buffered_bytes=1 << 30)
REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", "/"), ("te", "trailers")]
BLOCK = encode_headers([(b"x", b"y")])
TRAILERS = encode_headers([(b"t", b"0")])
GREETING = PREFACE + frames.settings({})

Frame = tuple[int, int, int, bytes]


class Transport(FakeTransport):
    unsent = 0

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is ever held back here."""


class Echo(Stream):
    """Answers with what it was sent, or `size` bytes, unless it is told to wait."""

    __slots__ = ("__weakref__", "data", "events", "head")

    def __init__(self, outlet: Outlet, stream_id: int, head: Headers) -> None:
        super().__init__(outlet, stream_id)
        self.head = head
        self.data = b""
        self.events: list[str] = []

    def on_data(self, piece: Buffer) -> None:
        self.data += bytes(piece)

    def on_end(self) -> None:
        self.events.append("end")
        if (b"wait", b"1") not in self.head:
            size = dict(self.head).get(b"size")
            self.answer(BLOCK, b"", bytes(int(size)) if size else self.data, TRAILERS)

    def on_stall(self) -> None:
        self.events.append("stall")
        self.end(TRAILERS)

    def on_gone(self) -> None:
        self.events.append("gone")


class Echoes:
    def __init__(self) -> None:
        self.made: list[Echo] = []
        self.read = 0

    def interpret(self, headers: Headers) -> Headers:
        self.read += 1
        return headers

    def stream(self, outlet: Outlet, stream_id: int, head: Headers) -> Echo:
        self.made.append(Echo(outlet, stream_id, head))
        return self.made[-1]


class Peer:
    """One client of one connection."""

    def __init__(
        self, greet: bool = True, application: Application[Any] | None = None, **limits: Any
    ) -> None:
        self.app = Echoes()
        self.state = Http2State(replace(LIMITS, **limits))
        self.connection = Http2Connection(self.state, application or self.app)
        self.transport = Transport(self.connection)
        self.connection.connection_made(self.transport)
        self.encoder = Encoder()
        if greet:
            self.send(GREETING)

    def send(self, *data: bytes) -> None:
        self.connection.data_received(b"".join(data))

    def block(self, *more: tuple[str, str]) -> bytes:
        encoded: bytes = self.encoder.encode([*REQUEST, *more])
        return encoded

    def headers(self, stream: int, *more: tuple[str, str], end: bool = False) -> bytes:
        flags = frames.END_HEADERS | (frames.END_STREAM if end else 0)
        return frame(frames.HEADERS, flags, stream, self.block(*more))

    def call(self, stream: int, data: bytes = b"abc", *more: tuple[str, str]) -> bytes:
        return self.headers(stream, *more) + frame(frames.DATA, frames.END_STREAM, stream, data)

    def window(self, stream: int, size: int) -> bytes:
        return frames.window_update(stream, size)

    @property
    def frames(self) -> list[Frame]:
        """What was answered, but for the greeting and what only acknowledges it."""
        return [each for each in parse(self.transport.written)[2:] if each[:2] != (4, 1)]

    def of(self, kind: int, stream: int | None = None) -> list[Frame]:
        return [f for f in self.frames if f[0] == kind and stream in (None, f[2])]

    def data(self, stream: int) -> bytes:
        return b"".join([each[3] for each in self.of(frames.DATA, stream)])

    @property
    def goaway(self) -> list[ErrorCode]:
        return [ErrorCode(int.from_bytes(f[3][4:8], "big")) for f in self.of(frames.GOAWAY)]

    def resets(self, stream: int | None = None) -> list[ErrorCode]:
        found = self.of(frames.RST_STREAM, stream)
        return [ErrorCode(int.from_bytes(f[3], "big")) for f in found]

    def finished(self, stream: int) -> bool:
        return any(f[1] & frames.END_STREAM for f in self.of(frames.HEADERS, stream))


def parse(data: bytes) -> list[Frame]:
    found = []
    while data:
        high, low, kind, flags, stream = HEAD.unpack_from(data)
        stop = HEAD_SIZE + (high << 8 | low)
        found.append((kind, flags, stream, data[HEAD_SIZE:stop]))
        data = data[stop:]
    return found
