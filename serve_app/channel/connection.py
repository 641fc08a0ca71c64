"""The ingress' side of one direct channel: calls are pipelined, answers come in any order."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic

from serve_app.channel.frame import (
    Frame,
    FrameError,
    Kind,
    bare_frame,
    call_frame,
    read_failure,
    read_greeting,
    read_result,
)
from serve_app.channel.segment import Segment, SegmentPool
from serve_app.channel.stream import FrameReader
from serve_app.domain.inference import BatchResult, InferenceBatch
from serve_app.domain.routing import Endpoint
from serve_app.errors import (
    DeadlineExceeded,
    ModelFailed,
    NotReady,
    Overloaded,
    ReplicaLost,
    ServeAppError,
)

logger = logging.getLogger(__name__)

TRANSPORT = "direct"
GREETING_S = 2.0
"""A replica that accepts and says nothing for this long is left alone."""
_MAX_NUMBER = 0xFFFFFFFF

_FAILURES: dict[str, type[ServeAppError]] = {
    error.code: error for error in (ModelFailed, NotReady, Overloaded, DeadlineExceeded)
}


class ChannelConnection(asyncio.BufferedProtocol):
    """One connection to one replica; belongs to one event loop.

    `outstanding` counts calls that the replica has not answered, also those that nobody waits for
    any more: they keep it busy all the same.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.outstanding = 0
        self.usable = False
        """Greeted, not draining, not lost."""
        self.heard = monotonic()
        """When the last bytes came."""
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the connection is lost."""
        self._loop = asyncio.get_running_loop()
        self._greeted: asyncio.Future[None] = self._loop.create_future()
        self._reader = FrameReader()
        self._waiting: dict[int, asyncio.Future[BatchResult] | None] = {}
        self._number = 0
        self._pool: SegmentPool | None = None
        self._segments: dict[int, Segment] = {}
        """Those that the replica is reading, by call."""
        self._draining = False
        self._transport: asyncio.Transport | None = None

    async def open(self) -> None:
        """Connects and waits for the greeting.

        Raises:
            OSError: there is nobody (TimeoutError: nobody who speaks).
            FrameError: somebody else listens there.
        """
        try:
            async with asyncio.timeout(GREETING_S):
                await self._loop.create_unix_connection(lambda: self, self.endpoint.path)
                await self._greeted
        except BaseException:
            self.abort()
            raise

    async def call(self, batch: InferenceBatch, timeout_s: float) -> BatchResult:
        """Sends one batch and waits for its result.

        Raises:
            ReplicaLost: the connection broke.
            DeadlineExceeded: `timeout_s` passed.
            Overloaded, NotReady, ModelFailed: what the replica answered.
        """
        transport = self._transport
        if transport is None or not self.usable:
            raise ReplicaLost("the replica went away")
        number = self._number = self._number % _MAX_NUMBER + 1
        future: asyncio.Future[BatchResult] = self._loop.create_future()
        frame, segment = call_frame(number, batch, monotonic(), self._pool)
        if segment is not None:
            self._segments[number] = segment
        self._waiting[number] = future
        self.outstanding += 1
        transport.writelines(frame)
        timer = self._loop.call_later(timeout_s, self._time_out, number)
        try:
            return await future
        except asyncio.CancelledError:
            self._give_up(number)
            raise
        finally:
            timer.cancel()

    def close(self) -> None:
        """Sends nothing more; ends when every call under way has been answered."""
        self.usable = False
        self._draining = True
        self._end_if_done()

    def abort(self) -> None:
        """Ends now: calls under way are lost."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    # What the transport reports

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Connected."""
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._reader.space()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come."""
        self.heard = monotonic()
        try:
            for frame in self._reader.received(nbytes):
                self._take(frame)
        except FrameError as error:
            logger.warning("a bad frame: %s", error, extra={"action": "channel"})
            if not self._greeted.done():
                self._greeted.set_exception(error)
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The replica is gone, or we are done with it."""
        self.usable = False
        if not self._greeted.done():
            self._greeted.set_exception(ConnectionResetError("closed before the greeting"))
            self._greeted.exception()  # perhaps nobody waits
        for future in self._waiting.values():
            if future is not None and not future.done():
                future.set_exception(ReplicaLost("a replica was lost"))
        self._waiting.clear()
        self._segments.clear()
        if self._pool is not None:
            self._pool.close()
            self._pool = None
        self.outstanding = 0
        if not self.gone.done():
            self.gone.set_result(None)

    # What the replica says

    def _take(self, frame: Frame) -> None:
        kind = frame.kind
        if kind is Kind.RESULT or kind is Kind.FAILURE:
            self._settle(frame)
        elif kind is Kind.DRAINING:
            self.close()
        elif kind is Kind.GREETING:
            greeting = read_greeting(frame)
            if greeting.replica != self.endpoint.replica:
                raise FrameError("another replica listens there")
            if greeting.shares_memory and self._pool is None:
                self._pool = SegmentPool()
            if not self._greeted.done():
                self._greeted.set_result(None)
                self.usable = not self._draining
        elif kind is not Kind.BEAT:
            raise FrameError(f"a replica does not send {kind.name}")

    def _settle(self, frame: Frame) -> None:
        if frame.call not in self._waiting:
            raise FrameError("an answer to no call")
        # Read first: a call whose answer cannot be read is lost with the connection.
        answer = self._read_answer(frame)
        future = self._waiting.pop(frame.call)
        self.outstanding -= 1
        segment = self._segments.pop(frame.call, None)
        if segment is not None and self._pool is not None:
            self._pool.give(segment)
        if future is not None and not future.done():
            if isinstance(answer, ServeAppError):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        self._end_if_done()

    def _read_answer(self, frame: Frame) -> BatchResult | ServeAppError:
        if frame.kind is Kind.RESULT:
            return read_result(frame, TRANSPORT)
        failure = read_failure(frame)
        return _FAILURES.get(failure.code, ModelFailed)(failure.detail)

    def _end_if_done(self) -> None:
        if self._draining and not self._waiting and self._transport is not None:
            self._transport.close()

    def _time_out(self, number: int) -> None:
        future = self._waiting.get(number)
        if future is not None and not future.done():
            self._give_up(number)
            future.set_exception(DeadlineExceeded("the deadline of the request passed"))

    def _give_up(self, number: int) -> None:
        """Tells the replica that nobody waits; the call stays outstanding until it answers."""
        if number in self._waiting:
            self._waiting[number] = None
            if self._transport is not None and not self._transport.is_closing():
                self._transport.write(bare_frame(Kind.CANCEL, number))
