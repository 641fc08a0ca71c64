"""What every call shares: it has one message, and ends once, well or not."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from time import monotonic

from serve_app.context import current_request
from serve_app.domain.raw_tensor import Buffer
from serve_app.domain.request_id import request_id
from serve_app.errors import (
    BodyTimeout,
    ClientGone,
    DeadlineExceeded,
    Overloaded,
    ServeAppError,
    Unimplemented,
)
from serve_app.grpc import blocks
from serve_app.grpc.compression import inflate
from serve_app.grpc.errors import Metadata, failure
from serve_app.grpc.head import CallHead
from serve_app.grpc.message import PREFIX_SIZE, MessageReader
from serve_app.http2.outlet import Outlet
from serve_app.http2.stream import STREAM_COST, Stream
from serve_app.public_error import OK, public_error
from serve_app.telemetry.sink import Telemetry
from serve_app.telemetry.trace import RequestTrace

logger = logging.getLogger(__name__)

_SLACK_S = 0.01
_PIECE_COST = 64
_INFLATED_AT_ONCE = 8 * 1024
"""A larger message may be a thousand times larger in truth; a thread inflates it."""


@dataclass(frozen=True, slots=True)
class CallSettings:
    """What all calls of a listener share."""

    telemetry: Telemetry
    max_message_bytes: int


class Call(Stream):
    """Takes the message in; its kinds answer it."""

    __slots__ = ("_message", "_recorded", "head", "settings", "trace")

    def __init__(
        self, outlet: Outlet, stream_id: int, head: CallHead, settings: CallSettings
    ) -> None:
        super().__init__(outlet, stream_id)
        self.head = head
        self.settings = settings
        self.trace = RequestTrace("grpc", request_id(head.request_id))
        self.trace.traceparent = head.traceparent
        self._message: MessageReader | None = None
        self._recorded = False

    def on_message(self, message: Buffer) -> None:
        """Answers, or begins to. What it raises is answered as well."""
        raise NotImplementedError

    def on_cancel(self) -> None:
        """Nobody waits for the answer."""

    # What the connection reports

    def on_start(self) -> None:
        """See `Stream`."""
        if not self.hold(STREAM_COST + self.head.size):
            self.fail(Overloaded("all calls in work hold too much together"))
        elif self.head.fault is not None:
            self.fail(self.head.fault)

    def on_data(self, piece: Buffer) -> None:
        """See `Stream`."""
        message = self._message
        if message is None:
            message = self._message = MessageReader(self.settings.max_message_bytes)
        try:
            self._keep(len(piece) + _PIECE_COST)
            message.feed(piece)
        except Exception as exc:
            self.fail(exc)

    def on_end(self) -> None:
        """See `Stream`."""
        reader = self._message or MessageReader(0)
        self._message = None
        try:
            message = reader.finish()
            if not reader.compressed:
                self.on_message(message)
            elif len(message) > _INFLATED_AT_ONCE:
                self._message = reader
                inflated = asyncio.get_running_loop().run_in_executor(None, self._inflate_later)
                inflated.add_done_callback(self._take_inflated)
            else:
                self._accept(self._inflate(message))
        except Exception as exc:
            self.fail(exc)

    def on_stall(self) -> None:
        """See `Stream`."""
        self.fail(BodyTimeout("the message did not arrive in time"))

    def on_gone(self) -> None:
        """See `Stream`."""
        self._message = None
        self.on_cancel()
        remaining_s = self.remaining_s
        # The deadline may have passed by the client's clock, which is not ours.
        late = remaining_s is not None and remaining_s < _SLACK_S
        self._record(DeadlineExceeded if late else ClientGone)

    def _keep(self, size: int) -> None:
        if not self.hold(size):
            raise Overloaded("the messages of all calls in work are too large together")

    # Compressed messages

    def _inflate(self, message: Buffer) -> bytes:
        return inflate(message, self.head.encoding, self.settings.max_message_bytes)

    def _inflate_later(self) -> bytes:
        """Runs in a thread, which finds nothing to do if the call is over when its turn comes."""
        reader = self._message
        return b"" if reader is None else self._inflate(reader.finish())

    def _accept(self, message: bytes) -> None:
        self._keep(len(message))
        self.on_message(message)

    def _take_inflated(self, inflated: asyncio.Future[bytes]) -> None:
        inflated.exception()  # asked for in any case, since asyncio logs those that nobody saw
        if not self.open:
            return
        self._message = None
        try:
            self._accept(inflated.result())
        except Exception as exc:
            self.fail(exc)

    # What is answered

    @property
    def remaining_s(self) -> float | None:
        """What is left of the deadline, 0 past it, None without one."""
        timeout_s = self.head.timeout_s
        if timeout_s is None:
            return None
        return max(0.0, self.trace.started + timeout_s - monotonic())

    def reply(self, message: bytes, trailers: Metadata) -> None:
        """Answers well.

        Args:
            message: the serialised answer.
            trailers: sent only to a client that looks for them.
        """
        block = blocks.OK
        if self.head.request_id is not None:
            block += blocks.encode_metadata(trailers)
        prefix = len(message).to_bytes(PREFIX_SIZE, "big")
        if self.answer(blocks.RESPONSE, prefix, message, block):
            self._record(None)
        else:
            self.fail(Overloaded("the answers to all calls are too large together"))

    def fail(self, exc: Exception) -> None:
        """Ends the call with an error, which is logged if nobody expected it."""
        if not self.open:
            raise exc
        trace = self.trace
        error = public_error(exc)
        if error is not exc:
            token = current_request.set(trace)
            extra = {"action": "grpc", "request_id": trace.request_id}
            logger.error("unexpected error", extra=extra, exc_info=exc)
            current_request.reset(token)
        self._record(error)
        self.end(blocks.encode_failure(failure(error, trace.request_id, trace.version)))

    def _record(self, error: ServeAppError | type[ServeAppError] | None) -> None:
        """Tells telemetry how the call ended, once."""
        if self._recorded:
            return
        self._recorded = True
        if error is None:
            self.settings.telemetry.finish(self.trace, 200, OK)
        else:
            self.settings.telemetry.finish(self.trace, error.status, error.code)


class UnknownCall(Call):
    """Of a method that there is not."""

    __slots__ = ()

    def on_start(self) -> None:
        """See `Stream`."""
        if self.head.http_status != 200:
            self._record(Unimplemented)
            self.end(blocks.encode_http_status(self.head.http_status))
            return
        path = self.head.path.decode("latin-1")
        self.fail(self.head.fault or Unimplemented(f"there is no method {path}"))
