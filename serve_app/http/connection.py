"""One client connection: uvicorn's httptools protocol, with the limits that it does not have."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve_app.domain.request_id import request_id
from serve_app.errors import (
    BodyTimeout,
    HeadersTooLarge,
    MalformedRequest,
    Overloaded,
    ServeAppError,
)
from serve_app.http.errors import error_response
from serve_app.http.exchange import CLOSE, Exchange, write_head
from serve_app.http.listener_state import ListenerState, Phase
from serve_app.http.patience import PhaseWatch, ReaderWatch

_SPECIAL = frozenset({b"expect", b"host", b"transfer-encoding"})
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_MAX_QUEUED = 16
"""So many pipelined requests may wait before we stop reading."""
_HEADER_OVERHEAD = 4
"""Colon, space and line break of a header, which the parser does not report."""
_REFUSALS = 256
"""So many connections beyond the limit are told so; those beyond them are just closed."""


class HttpConnection(HttpToolsProtocol):
    """Adds time limits per phase, caps on the head, and error bodies of our shape.

    There are no timers per request: the listener calls `sweep` on each connection every so often,
    which notices when a connection has been waiting for the same thing for too long.
    """

    server_state: ListenerState
    cycle: Exchange
    """The exchange whose request was parsed last; with pipelining not the one in work."""

    def __init__(
        self,
        config: Config,
        server_state: ListenerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.http = server_state.http
        self.url = b""
        self._watch = PhaseWatch(server_state.limits_s)
        self._reader = ReaderWatch(self.http.write_timeout_s)
        self.active: Exchange | None = None
        self._queued: deque[Exchange] = deque()
        self._hosts = 0
        self._head_bytes = 0  # of the headers that are complete
        self._unparsed = 0  # bytes since the last that became a head or a body
        self._fault: ServeAppError | None = None
        self._discarding = False
        self._resuming = False

    # What the transport reports

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected."""
        super().connection_made(transport)
        surplus = len(self.connections) - self.http.max_connections
        if surplus > _REFUSALS:
            transport.abort()
        elif surplus > 0:
            self._refuse(Overloaded("too many open connections"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: what it asked for is dropped."""
        self.connections.discard(self)
        self._discarding = True
        self._drop_queued()
        if self.active is not None:
            self.active.disconnect()
        self.flow.resume_writing()
        self.transport.close()
        self.parser = None  # type: ignore[assignment]  # ends a cycle of references, as in uvicorn

    def data_received(self, data: bytes) -> None:
        """Takes bytes from the client."""
        if self._discarding:
            return
        self._unparsed += len(data)
        rest: bytes | memoryview = data
        try:
            while rest:
                rest = self._feed(rest)
        except httptools.HttpParserError:
            self._refuse(self._fault or MalformedRequest("this is not a valid HTTP/1.1 request"))
            return
        waiting = self._watch.phase is Phase.HEAD or self._watch.phase is Phase.BODY
        if waiting and self._unparsed > self.http.max_header_bytes:
            self._refuse(self._head_too_large())

    def _feed(self, data: bytes | memoryview) -> bytes | memoryview:
        """Parses; returns what is left behind a request that asked for an upgrade."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade()
            return memoryview(data)[upgrade.args[0] :]
        return b""

    def _ignore_upgrade(self) -> None:
        """Goes on with a request that asked for an upgrade, as if it had not.

        Some clients offer h2c with every first request. Upgrades are not served here, but the
        parser stops at them, before the body: a new one takes over, told of the body's framing.
        """
        framing = [header for header in self.headers if header[0] in _FRAMING]
        self.parser = httptools.HttpRequestParser(self)
        if framing:
            self._resuming = True
            lines = [b"%b: %b\r\n" % header for header in framing]
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(lines))

    # What the parser reports

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self._resuming:
            return
        super().on_message_begin()
        self._hosts = 0
        self._head_bytes = 0
        self._watch.enter(Phase.HEAD)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; trailers after a chunked body are ignored."""
        if self._watch.phase is not Phase.HEAD:
            return
        self._head_bytes += len(name) + len(value) + _HEADER_OVERHEAD
        name = name.lower()
        if name in _SPECIAL:
            if name == b"host":
                self._hosts += 1
            elif name == b"expect":
                self.expect_100_continue = value.lower() == b"100-continue"
            elif value.lower() != b"chunked":
                raise self._failed(MalformedRequest("only chunked transfer encoding is supported"))
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is complete: the request starts, or waits for the one before it."""
        if self._resuming:
            self._resuming = False
            return
        scope: Any = self.scope
        version = self.parser.get_http_version()
        self._check_head(version)
        scope["http_version"] = version
        scope["method"] = self.parser.get_method().decode("ascii")
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope["raw_path"] = url.path
        scope["path"] = unquote(path) if "%" in path else path
        scope["query_string"] = url.query or b""
        exchange = Exchange(
            self.server_state,
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=[],
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version == "1.1" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        self.cycle = exchange
        self._unparsed = 0
        self._watch.enter(Phase.BODY)
        if self.active is None or self.active.response_complete:
            self._start(exchange)
        else:
            self._queued.append(exchange)
            if len(self._queued) >= _MAX_QUEUED:
                self.flow.pause_reading()

    def _check_head(self, version: str) -> None:
        if len(self.headers) > self.http.max_headers:
            raise self._failed(HeadersTooLarge(f"more than {self.http.max_headers} headers"))
        if len(self.url) + self._head_bytes > self.http.max_header_bytes:
            raise self._failed(self._head_too_large())
        if version == "1.1":
            if self._hosts != 1:
                raise self._failed(MalformedRequest("exactly one Host header is needed"))
        elif version != "1.0":
            raise self._failed(MalformedRequest("only HTTP/1.1 and HTTP/1.0 are spoken here"))

    def _head_too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(f"the head is larger than {self.http.max_header_bytes} bytes")

    def _failed(self, fault: ServeAppError) -> ServeAppError:
        """Remembers a fault, because the parser hides what its callbacks raise."""
        self._fault = fault
        return fault

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._unparsed = 0
        if not self._discarding:
            try:
                self.cycle.feed(body)
            except Overloaded as fault:
                raise self._failed(fault) from None

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._unparsed = 0
        if self._discarding or (self.parser.should_upgrade() and self._has_body()):
            return
        self.cycle.complete()
        self._watch.enter(Phase.WORK)
        self._read_on()

    def _has_body(self) -> bool:
        return any(name in _FRAMING for name, _ in self.headers)

    def _read_on(self) -> None:
        if len(self._queued) < _MAX_QUEUED:
            self.flow.resume_reading()

    # What we answer

    def _start(self, exchange: Exchange) -> None:
        self.active = exchange
        exchange.start(self.app)

    def _drop_queued(self) -> None:
        while self._queued:
            self._queued.popleft().release()

    def on_response_complete(self) -> None:
        """The answer to the active exchange has been written."""
        if self.transport.is_closing():
            return
        active = self.active
        if active is None or not active.keep_alive:
            if self._discarding or (active is not None and active.more_body):
                self._linger()
            else:
                self.transport.close()
        elif self._queued:
            self._start(self._queued.popleft())
            self._read_on()
        else:
            self.flow.resume_reading()
            if self._watch.phase is Phase.WORK:
                self._watch.enter(Phase.IDLE)

    def _refuse(self, fault: ServeAppError) -> None:
        """Ends what the client sends: nothing after this point can be understood or waited for.

        A body that breaks off is answered by the application. A broken request behind one that is
        still in work gets no answer of its own, only the end of the connection.
        """
        self._discarding = True
        active = self.active
        if active is not None and not active.response_complete:
            self._drop_queued()
            active.keep_alive = False
            if active is self.cycle and active.more_body:
                active.fail(fault)
            self._watch.enter(Phase.WORK)
            return
        path = self.url.decode("latin-1")
        status, headers, body = error_response(fault, path, request_id(None))
        self.transport.write(write_head(status, headers, self.server_state.date, CLOSE) + body)
        self._linger()

    def _linger(self) -> None:
        """Closes our side and lets the client finish reading.

        Closing at once while it still sends would reset the connection and take our answer away.
        """
        self._discarding = True
        self._watch.enter(Phase.LINGER)
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    # What the listener asks for

    def sweep(self, now: float) -> None:
        """Ends the connection if it has been waiting for too long.

        Args:
            now: the loop's time.
        """
        if self._watch.expired(now):
            self._time_out()
        if self._reader.expired(now, self.transport.get_write_buffer_size()):
            self.transport.abort()

    def _time_out(self) -> None:
        phase = self._watch.phase
        if phase is Phase.HEAD:
            self._refuse(BodyTimeout("the head of the request did not arrive in time"))
        elif phase is Phase.BODY:
            if self.flow.read_paused:  # we are the ones who wait with reading
                self._watch.enter(phase)
            else:
                self._refuse(BodyTimeout("the body of the request did not arrive in time"))
        elif phase is Phase.LINGER:
            if not self.transport.get_write_buffer_size():
                self.transport.abort()
        else:
            self.transport.close()
