"""One client connection: its streams, its windows, and how it ends."""

from __future__ import annotations

import asyncio
from random import uniform
from typing import Generic

from serve_app.http2 import frames
from serve_app.http2.application import Application
from serve_app.http2.frames import (
    ACK,
    LARGEST_NUMBER,
    NUMBER,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Buffer,
    ConnectionFault,
    ErrorCode,
    frame,
)
from serve_app.http2.guard import Guard
from serve_app.http2.headers import Head, HeaderReader
from serve_app.http2.outlet import Outlet
from serve_app.http2.reader import FrameReader
from serve_app.http2.state import Http2State
from serve_app.http2.stream import Stream
from serve_app.listening.patience import Stillness

_FAREWELL = b"farewell"
_ALIVE = b"alive?? "
_FAREWELL_S = 5.0
"""For a peer to answer the ping behind our first GOAWAY."""
_LINGER_S = 2.0
"""For a client to close its side once all has been sent."""
_DRAIN_S = 1.0
"""For a client that had not even begun when we began to shut down."""
_HIGH_WATER = 256 * 1024
_SETTINGS_COST = 16


class Http2Connection(FrameReader, Outlet, asyncio.Protocol, Generic[Head]):
    """Hands requests to the application; keeps windows, limits and order.

    There are no timers per stream: the listener calls `sweep` every so often.
    """

    transport: asyncio.Transport

    def __init__(self, state: Http2State, application: Application[Head]) -> None:
        FrameReader.__init__(self, state.limits)
        Outlet.__init__(self, state)
        self._application = application
        self._headers = HeaderReader(state.limits, application.interpret)
        self._guard = Guard()
        self._loop = asyncio.get_running_loop()
        self._last_id = 0
        self._credit = state.limits.connection_window
        self._pauses = 0
        self._received = 0  # how often anything was
        self._retiring = False
        self._final = False  # streams that begin now are not looked at
        self._over = False
        self._retires_at = float("inf")
        self._stillness = Stillness()  # of what the peer owes us, whatever that is
        self._silence = Stillness()
        self._asked = -1  # what had been received when we asked whether it is there

    # What the transport reports

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected."""
        self.transport = transport
        self.write = transport.write
        state, limits = self.state, self._limits
        state.connections.add(self)
        if len(state.connections) > limits.max_connections:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=_HIGH_WATER)
        if limits.max_connection_age_s is not None:
            age_s = limits.max_connection_age_s * uniform(0.9, 1.1)
            self._retires_at = self._loop.time() + age_s
        self.write(limits.greeting)
        if state.draining:
            self.retire()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: what it asked for is dropped."""
        self.state.connections.discard(self)
        self._end()
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Takes bytes from the client."""
        if self._over:
            return
        self._received += 1
        try:
            self.read(data)
        except ConnectionFault as fault:
            self.write(frames.goaway(self._last_id, fault.code, fault.reason))
            self._linger()

    def pause_writing(self) -> None:
        """The client does not take what we send: nothing that asks for more is read."""
        self.paused = True
        self._pauses += 1
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """It does again."""
        self.paused = False
        if not self.transport.is_closing():
            self.transport.resume_reading()
        self.flush()

    # What was read

    def on_block(self, stream: int, block: bytes, last: bool) -> None:
        """See `FrameReader`."""
        head = self._headers.read(block)
        if stream <= self._last_id:
            self._on_trailers(stream, last)
            return
        if not stream & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client's streams are odd")
        if self._final:
            return
        self._last_id = stream
        if isinstance(head, ErrorCode):
            self._refuse(stream, head)
            return
        if len(self.streams) >= self._limits.max_streams:
            self._refuse(stream, ErrorCode.REFUSED_STREAM)
            return
        made = self.streams[stream] = self._application.stream(self, stream, head)
        made.remote_ended = last
        made.on_start()
        if last and made.open:
            made.on_end()

    def _on_trailers(self, stream: int, last: bool) -> None:
        """Trailers say nothing to us; those of a stream that is over may have been on the way."""
        known = self.streams.get(stream)
        if known is None:
            if not last:
                raise ConnectionFault(ErrorCode.STREAM_CLOSED, "a stream begins twice")
        elif known.remote_ended:
            self._break(known, ErrorCode.STREAM_CLOSED)
        elif not last:
            self._break(known, ErrorCode.PROTOCOL_ERROR)
        else:
            known.remote_ended = True
            known.on_end()

    def on_data_frame(self, stream: int, length: int) -> None:
        """See `FrameReader`. Data of streams that are over counts as well."""
        window = self._limits.connection_window
        self._credit -= length
        if self._credit < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more than the window allows")
        if self._credit < window // 2:
            self.write(frames.window_update(0, window - self._credit))
            self._credit = window
        known = self.streams.get(stream)
        if known is None:
            self._must_be_old(stream)
            return
        known.credit -= length
        if known.remote_ended:
            self._break(known, ErrorCode.STREAM_CLOSED)
        elif known.credit < 0:
            self._break(known, ErrorCode.FLOW_CONTROL_ERROR)

    def on_data(self, stream: int, piece: Buffer) -> None:
        """See `FrameReader`."""
        known = self.streams.get(stream)
        if known is not None:
            known.received += len(piece)
            known.on_data(piece)

    def on_data_end(self, stream: int, last: bool) -> None:
        """See `FrameReader`."""
        known = self.streams.get(stream)
        if known is None:
            return
        if last:
            known.remote_ended = True
            known.on_end()
            return
        window = self._limits.stream_window
        if known.credit < window // 2:
            self.write(frames.window_update(stream, window - known.credit))
            known.credit = window

    def on_control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """See `FrameReader`."""
        if kind == WINDOW_UPDATE:
            self._on_window_update(stream, NUMBER.unpack(payload)[0] & LARGEST_NUMBER)
        elif kind == PING:
            if not flags & ACK:
                self._guard.ping(self._loop.time(), self.spoke)
                self.spoke = False
                self.write(frame(PING, ACK, 0, payload))
            elif payload == _FAREWELL and self._retiring:
                self._say_farewell()
        elif kind == RST_STREAM:
            self._must_be_old(stream)
            self._guard.annoy(self._loop.time())
            known = self.streams.get(stream)
            if known is not None:
                known.close()
                known.on_gone()
        elif kind == SETTINGS and not flags & ACK:
            self._guard.annoy(self._loop.time(), _SETTINGS_COST)
            self.follow(payload)
            self.write(frames.SETTINGS_ACK)

    def _must_be_old(self, stream: int) -> None:
        if stream > self._last_id and not self._final:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the stream has not begun")

    def _on_window_update(self, stream: int, size: int) -> None:
        if stream:
            self._must_be_old(stream)
            known = self.streams.get(stream)
            if known is None:
                return
            if not size:
                self._break(known, ErrorCode.PROTOCOL_ERROR)
            elif not known.widen(size):
                self._break(known, ErrorCode.FLOW_CONTROL_ERROR)
            elif known.waiting:
                self.enqueue(known)
            return
        self.widen(size)

    def _refuse(self, stream: int, code: ErrorCode) -> None:
        """Answers a stream that is not even begun."""
        self._guard.annoy(self._loop.time())
        self.write(frames.reset(stream, code))

    def _break(self, stream: Stream, code: ErrorCode) -> None:
        """The peer broke the protocol on one stream."""
        self._guard.annoy(self._loop.time())
        stream.close_with(code)

    # How it ends

    def forget(self, stream: Stream) -> None:
        """See `Outlet`."""
        super().forget(stream)
        self._end_if_done()

    def retire(self) -> None:
        """Asks the peer to connect anew, and answers what it sends before it has heard of that."""
        if not self._retiring and not self._over:
            self._retiring = True
            self.write(frames.goaway(LARGEST_NUMBER, ErrorCode.NO_ERROR, "max_age"))
            self.write(frame(PING, 0, 0, _FAREWELL))

    def _say_farewell(self) -> None:
        if not self._final:
            self._final = True
            self.write(frames.goaway(self._last_id, ErrorCode.NO_ERROR))
            self._end_if_done()

    def _end_if_done(self) -> None:
        if self._final and not self.streams:
            self._linger()

    def _linger(self) -> None:
        """Closes our side and lets the client finish reading.

        Closing at once while it still sends would reset the connection and take our answers away.
        """
        if self._over:
            return
        self._end()
        if not self.transport.is_closing():
            self.transport.resume_reading()
            self.transport.write_eof()

    def _end(self) -> None:
        """Nothing is read or written any more."""
        self._over = True
        self.write = _discard
        streams = list(self.streams.values())
        self.streams.clear()
        self._sendable.clear()
        for stream in streams:
            stream.close()
            stream.on_gone()

    def sweep(self, now: float) -> None:
        """Ends the connection, or streams of it, if the peer has kept us waiting for too long.

        Args:
            now: the loop's time.
        """
        owed, limit_s = self._owed()
        if self._stillness.lasts_s(owed, now) >= limit_s:
            if owed is _FAREWELL:
                self._say_farewell()
            else:
                self._cut()
        if self._over:
            return
        self._sweep_silence(now)
        if now >= self._retires_at:
            self.retire()
        for stream in list(self.streams.values()):
            stream.sweep(now)

    def _sweep_silence(self, now: float) -> None:
        silent_s = self._silence.lasts_s(self._received, now)
        limits = self._limits
        if silent_s >= limits.silence_s + limits.pong_s:
            self._cut()
        elif silent_s >= limits.silence_s and self._asked != self._received:
            self._asked = self._received
            self.write(frame(PING, 0, 0, _ALIVE))

    def _cut(self) -> None:
        self._end()
        self.transport.abort()

    def _owed(self) -> tuple[object, float]:
        """What the peer has to do next, as something that changes when it does, and its limit."""
        limits = self._limits
        if self._over:
            left = self.transport.get_write_buffer_size()
            return ("close", left.bit_length()), limits.write_timeout_s if left else _LINGER_S
        if self.paused:
            return ("pause", self._pauses), limits.write_timeout_s
        unfinished = self.unfinished
        if unfinished or not self._opened:
            limit_s = limits.header_timeout_s
            if self.state.draining and not self._last_id:
                limit_s = min(limit_s, _DRAIN_S)
            return ("frame", unfinished), limit_s
        if self._retiring and not self._final:
            return _FAREWELL, _FAREWELL_S
        return None, float("inf")


def _discard(_data: Buffer) -> None:
    """Takes what is written after the end."""
