"""One request that an ASGI application answers, in a task of its own."""

from __future__ import annotations

import asyncio
import logging

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from serve_app.errors import ServeAppError
from serve_app.http.asgi import AsgiApp, Message, Scope
from serve_app.http.exchange import CLOSE, Exchange, Line, send_together, write_head

logger = logging.getLogger(__name__)

_BODILESS = frozenset({204, 304})
_CHUNKED = b"transfer-encoding: chunked\r\n"


class AsgiExchange(Exchange):
    """Runs the application as uvicorn would, with three differences.

    Head and body of a response leave in one write; a body that cannot be completed raises its
    error out of `receive`, so that the application answers it like any other; and when the client
    goes away the task is cancelled, which takes the request out of its batch.
    """

    __slots__ = (
        "_app",
        "_bodiless",
        "_buffered",
        "_changed",
        "_chunked",
        "_chunks",
        "_delivered",
        "_disconnected",
        "_fault",
        "_head",
        "_scope",
        "_task",
    )

    def __init__(
        self, line: Line, app: AsgiApp, scope: Scope, *, keep_alive: bool, awaits_continue: bool
    ) -> None:
        super().__init__(line, keep_alive=keep_alive, awaits_continue=awaits_continue)
        self._app = app
        self._scope = scope
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._chunks: list[bytes] = []
        self._buffered = 0  # not taken by the application yet
        self._delivered = False
        self._disconnected = False
        self._fault: ServeAppError | None = None
        self._head = b""
        self._bodiless = False
        self._chunked = False

    def start(self) -> None:
        """See `Exchange`."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def feed(self, chunk: bytes) -> None:
        """See `Exchange`."""
        if self.response_complete:
            return
        self.hold(len(chunk))
        self._chunks.append(chunk)
        self._buffered += len(chunk)
        if self._buffered > HIGH_WATER_LIMIT:
            self._line.flow.pause_reading()
        self._changed.set()

    def complete(self) -> None:
        """See `Exchange`."""
        self.more_body = False
        self._changed.set()

    def fail(self, fault: ServeAppError) -> None:
        """See `Exchange`."""
        self._fault = fault
        self.keep_alive = False
        self._changed.set()

    def disconnect(self) -> None:
        """See `Exchange`."""
        self._disconnected = True
        self.release()
        self._changed.set()
        if self._task is not None and not self.response_complete:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._line.transport.abort()
            raise
        except Exception:
            logger.exception("request failed", extra={"action": "request"})
        if not self.response_complete and not self._disconnected:
            self._line.transport.abort()

    async def receive(self) -> Message:
        """The ASGI receive channel."""
        while True:
            if self._disconnected or self.response_complete:
                return {"type": "http.disconnect"}
            if not self._delivered:
                if not self.more_body or self._chunks:
                    return self._take()
                if self._fault is not None:
                    raise self._fault
                self._ask()
            self._changed.clear()
            await self._changed.wait()

    def _take(self) -> Message:
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._buffered = 0
        self._delivered = not self.more_body
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Message) -> None:
        """The ASGI send channel."""
        flow = self._line.flow
        if flow.write_paused and not self._disconnected:
            await flow.drain()
        if self._disconnected or self.response_complete:
            return
        if message["type"] == "http.response.start":
            self._start_response(message["status"], message["headers"])
            return
        body: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        if self._bodiless:
            body = b""
        elif self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body += b"" if more else b"0\r\n\r\n"
        head, self._head = self._head, b""
        send_together(self._line.transport, head, [body], len(body))
        if not more:
            self._changed.set()
            self._finish()

    def _start_response(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Makes the head, which leaves with the first piece of the body."""
        self._bodiless = status in _BODILESS or self._scope["method"] == "HEAD"
        self._chunked = not self._bodiless and not any(
            name == b"content-length" for name, _ in headers
        )
        if self.more_body or self._listener.draining:
            self.keep_alive = False
        self._head = write_head(
            status,
            headers,
            self._listener.date,
            *((_CHUNKED,) if self._chunked else ()),
            *(() if self.keep_alive else (CLOSE,)),
        )
