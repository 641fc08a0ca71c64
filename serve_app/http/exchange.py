"""One request and its response on a connection, between uvicorn's protocol and our application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from serve_app.errors import Overloaded, ServeAppError
from serve_app.http.asgi import Message
from serve_app.http.listener_state import ListenerState

logger = logging.getLogger(__name__)

_BODILESS = frozenset({204, 304})
CLOSE = b"connection: close\r\n"
_JOIN_LIMIT = 64 * 1024
"""Larger bodies are not copied behind their head."""
_CHUNKED = b"transfer-encoding: chunked\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def write_head(
    status: int, headers: Iterable[tuple[bytes, bytes]], date: bytes, *extra: bytes
) -> bytes:
    """The bytes of a response's head.

    Args:
        status: the HTTP status.
        headers: names in lower case, and values.
        date: the line of the date header.
        extra: more header lines.

    Raises:
        ValueError: a header holds a line break.
    """
    lines = [STATUS_LINE[status], date]
    lines += [b"%b: %b\r\n" % header for header in headers]
    lines += (*extra, b"\r\n")
    head = b"".join(lines)
    if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines):
        raise ValueError("a response header holds a line break")
    return head


class Exchange(RequestResponseCycle):
    """uvicorn's cycle with three differences.

    Head and body of a response leave in one write; a body that cannot be completed raises its
    error out of `receive`, so that the application answers it like any other; and when the client
    goes away the task is cancelled, which takes the request out of its batch.
    """

    def __init__(self, listener: ListenerState, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.task: asyncio.Task[None] | None = None
        self._listener = listener
        self._chunks: list[bytes] = []
        self._buffered = 0  # not taken by the application yet
        self._held = 0  # this request's share of what the listener holds
        self._delivered = False
        self._fault: ServeAppError | None = None
        self._head = b""
        self._bodiless = False

    def start(self, app: Any) -> None:
        """Runs the application for this request."""
        self.task = asyncio.get_running_loop().create_task(self.run_asgi(app))

    def feed(self, chunk: bytes) -> None:
        """Takes a piece of the body.

        Raises:
            Overloaded: all requests of this listener together hold too much.
        """
        if self.response_complete:
            return
        size = len(chunk)
        listener = self._listener
        if listener.buffered + size > listener.http.max_buffered_bytes:
            raise Overloaded("the bodies of all requests in work are too large together")
        listener.buffered += size
        self._held += size
        self._chunks.append(chunk)
        self._buffered += size
        if self._buffered > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self.message_event.set()

    def complete(self) -> None:
        """The body has come to its end."""
        self.more_body = False
        self.message_event.set()

    def fail(self, fault: ServeAppError) -> None:
        """The rest of the body will not come: whoever waits for it gets this error."""
        self._fault = fault
        self.keep_alive = False
        self.message_event.set()

    def release(self) -> None:
        """Gives back this request's share of what the listener holds; may be called again."""
        self._listener.buffered -= self._held
        self._held = 0

    def disconnect(self) -> None:
        """The client is gone: nobody needs the answer."""
        self.disconnected = True
        self.release()
        self.message_event.set()
        if self.task is not None and not self.response_complete:
            self.task.cancel()

    async def run_asgi(self, app: Any) -> None:
        """Runs the application for this request."""
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            self.transport.abort()
            raise
        except Exception:
            logger.exception("request failed", extra={"action": "request"})
        if not self.response_complete and not self.disconnected:
            self.transport.abort()

    async def receive(self) -> Any:
        """The ASGI receive channel."""
        while True:
            if self.disconnected or self.response_complete:
                return {"type": "http.disconnect"}
            if not self._delivered:
                if not self.more_body or self._chunks:
                    return self._take()
                if self._fault is not None:
                    raise self._fault
                self._ask()
            self.message_event.clear()
            await self.message_event.wait()

    def _take(self) -> Message:
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._buffered = 0
        self._delivered = not self.more_body
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    def _ask(self) -> None:
        """Lets more of the body come."""
        self.flow.resume_reading()
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.waiting_for_100_continue = False
            self.transport.write(_CONTINUE)

    async def send(self, message: Any) -> None:
        """The ASGI send channel."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected or self.response_complete:
            return
        if message["type"] == "http.response.start":
            self._start_response(message["status"], message["headers"])
            return
        body: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        if self._bodiless:
            body = b""
        elif self.chunked_encoding:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body += b"" if more else b"0\r\n\r\n"
        if self._head:
            head, self._head = self._head, b""
            if len(body) > _JOIN_LIMIT:
                self.transport.write(head)
            else:
                body = head + body
        self.transport.write(body)
        if not more:
            self.response_complete = True
            self.release()
            self.message_event.set()
            self.on_response()

    def _start_response(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Makes the head, which leaves with the first piece of the body."""
        self.response_started = True
        self._bodiless = status in _BODILESS or self.scope["method"] == "HEAD"
        self.chunked_encoding = not self._bodiless and not any(
            name == b"content-length" for name, _ in headers
        )
        if self.more_body or self._listener.draining:
            self.keep_alive = False
        self._head = write_head(
            status,
            headers,
            self._listener.date,
            *((_CHUNKED,) if self.chunked_encoding else ()),
            *(() if self.keep_alive else (CLOSE,)),
        )
