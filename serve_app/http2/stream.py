"""One stream: a request that comes in, and what is sent back on it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from serve_app.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    LARGEST_NUMBER,
    Buffer,
    ErrorCode,
    frame,
    frame_head,
    reset,
)
from serve_app.listening.patience import ReaderWatch, Stillness

if TYPE_CHECKING:
    from serve_app.http2.outlet import Outlet

_TOGETHER = 64 * 1024
"""Answers up to this size are sent as one piece; larger ones are not copied."""
STREAM_COST = 2048
"""What a stream holds in memory besides its bytes, about."""
_PROGRESS = 64 * 1024
"""So many bytes within the time limit keep a message alive; fewer do not."""
_LAST = END_HEADERS | END_STREAM


class Stream:
    """Base of what answers requests.

    The connection calls `on_start` once, `on_data` for each piece of the request's data, `on_end`
    after the last, `on_stall` when the next piece does not come, and `on_gone` if the peer gives
    up. The stream answers with `answer`, or `begin`, `push` and `end`; nothing comes after that.
    """

    __slots__ = (
        "_held",
        "_outlet",
        "_reader",
        "_stillness",
        "_trailers",
        "_unsent",
        "_unsent_bytes",
        "credit",
        "id",
        "open",
        "received",
        "remote_ended",
        "sent",
    )

    def __init__(self, outlet: Outlet, stream_id: int) -> None:
        self.id = stream_id
        self.open = True
        """Whether anything may be sent."""
        self.credit = outlet.state.limits.stream_window
        """Bytes that the peer may send."""
        self.received = 0
        self.remote_ended = False
        self.sent = 0
        """Bytes that we sent beyond the window's updates; negative if these are ahead."""
        self._outlet = outlet
        self._held = 0
        self._unsent: deque[Buffer] | None = None
        self._unsent_bytes = 0
        self._trailers = b""
        self._reader: ReaderWatch | None = None
        self._stillness: Stillness | None = None

    # What the connection reports

    def on_start(self) -> None:
        """The request begins."""

    def on_data(self, piece: Buffer) -> None:
        """Takes a piece of its data, which must be copied unless it is `bytes`."""
        raise NotImplementedError

    def on_end(self) -> None:
        """The request is complete."""
        raise NotImplementedError

    def on_stall(self) -> None:
        """The rest of the request did not come in time."""
        raise NotImplementedError

    def on_gone(self) -> None:
        """The peer, or the connection, gave up: nobody waits for an answer."""
        raise NotImplementedError

    # What is sent

    def answer(self, block: bytes, prefix: bytes, body: Buffer, trailers: bytes) -> bool:
        """Sends a whole answer, and gives back what the request held.

        Args:
            block: the encoded headers.
            prefix: the first bytes of the data.
            body: the others.
            trailers: encoded as well.

        Returns:
            False if it has to wait and the listener holds too much; then nothing has been sent.
        """
        self.release()
        outlet = self._outlet
        size = len(prefix) + len(body)
        if (
            size > _TOGETHER
            or size > outlet.window
            or size > outlet.frame_size
            or size > outlet.initial_window - self.sent
            or outlet.paused
        ):
            if not self.hold(size):
                return False
            self.begin(block)
            self.push(prefix, body)
            self.end(trailers)
            return True
        outlet.window -= size
        number = self.id
        outlet.write(
            b"".join(
                (
                    frame_head(HEADERS, END_HEADERS, number, len(block)),
                    block,
                    frame_head(DATA, 0, number, size),
                    prefix,
                    body,
                    frame_head(HEADERS, _LAST, number, len(trailers)),
                    trailers,
                )
            )
        )
        self._finish()
        return True

    def begin(self, block: bytes) -> None:
        """Sends the headers of an answer that comes in parts."""
        self._outlet.spoke = True
        self._outlet.write(frame(HEADERS, END_HEADERS, self.id, block))

    def push(self, *parts: Buffer) -> None:
        """Sends parts of the data, as soon as the peer takes them."""
        unsent = self._unsent
        if unsent is None:
            unsent = self._unsent = deque()
            self._reader = ReaderWatch(self._outlet.state.limits.write_timeout_s)
        for part in parts:
            if part:
                unsent.append(memoryview(part))
                self._unsent_bytes += len(part)
        self._outlet.enqueue(self)

    def end(self, trailers: bytes) -> None:
        """Ends the answer, or is the whole of it, once all data has been sent."""
        self.open = False
        if self._unsent_bytes:
            self._trailers = trailers
        else:
            self._outlet.write(frame(HEADERS, _LAST, self.id, trailers))
            self._finish()

    def reset(self, code: ErrorCode) -> None:
        """Ends the stream at once; `on_gone` is not called."""
        self._outlet.write(reset(self.id, code))
        self.close()

    def close(self) -> None:
        """Forgets what has not been sent, and gives back what the stream holds."""
        self.open = False
        self._unsent = None
        self._unsent_bytes = 0
        self.release()
        self._outlet.forget(self)

    def _finish(self) -> None:
        if not self.remote_ended:  # what the peer still sends is not needed
            self._outlet.write(reset(self.id, ErrorCode.NO_ERROR))
        self._outlet.spoke = True
        self.close()

    @property
    def room(self) -> int:
        """Bytes of DATA that the peer takes on this stream; negative after its settings changed."""
        return self._outlet.initial_window - self.sent

    @property
    def waiting(self) -> bool:
        """Whether data waits to be sent."""
        return self._unsent_bytes > 0

    def widen(self, size: int) -> bool:
        """Takes an update of the window; returns whether it stays within what is allowed."""
        self.sent -= size
        return self.room <= LARGEST_NUMBER

    def send_frame(self) -> None:
        """Sends one frame of what waits; there must be room, here and on the connection."""
        unsent, outlet = self._unsent, self._outlet
        if not unsent:
            return
        part = unsent[0]
        size = min(len(part), outlet.frame_size, outlet.window, self.room, _TOGETHER)
        outlet.window -= size
        self.sent += size
        self._unsent_bytes -= size
        outlet.write(frame_head(DATA, 0, self.id, size))
        outlet.write(part[:size])
        outlet.spoke = True
        if size < len(part):
            unsent[0] = part[size:]
            return
        unsent.popleft()
        if not unsent and not self.open:
            self.end(self._trailers)

    # What it costs

    def hold(self, size: int) -> bool:
        """Adds to what the stream holds; returns whether the listener has that much left."""
        state = self._outlet.state
        self._held += size
        state.buffered += size
        return state.buffered <= state.limits.max_buffered_bytes

    def release(self) -> None:
        """Gives back what the stream holds; may be called again."""
        self._outlet.state.buffered -= self._held
        self._held = 0

    def sweep(self, now: float) -> None:
        """Gives up a peer that does not take the answer, or does not go on with its request."""
        if self._reader is not None and self._reader.expired(now, self._unsent_bytes):
            self.close_with(ErrorCode.CANCEL)
        elif not self.remote_ended:
            if self._stillness is None:
                self._stillness = Stillness()
            limit_s = self._outlet.state.limits.message_timeout_s
            if self._stillness.lasts_s(self.received // _PROGRESS, now) >= limit_s:
                self.on_stall()

    def close_with(self, code: ErrorCode) -> None:
        """Resets the stream and tells it so."""
        self.reset(code)
        self.on_gone()
