"""One client connection: httptools parses, and the limits of a public port are kept here."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping

import httptools
from uvicorn.protocols.http.flow_control import FlowControl

from serve_app.domain.request_id import request_id
from serve_app.errors import BodyTimeout, MalformedRequest, Overloaded, ServeAppError
from serve_app.http.asgi import AsgiApp
from serve_app.http.asgi_exchange import AsgiExchange
from serve_app.http.errors import error_response
from serve_app.http.exchange import CLOSE, Exchange, Line, write_head
from serve_app.http.infer_exchange import InferExchange
from serve_app.http.listener_state import ListenerState, Phase
from serve_app.http.parser import NO_PARSER, framing_head, has_body, new_parser
from serve_app.http.patience import PhaseWatch
from serve_app.http.request_head import asgi_scope, check_head, head_too_large
from serve_app.http.v2.infer import InferEndpoint, infer_target
from serve_app.listening.patience import ReaderWatch, unread_bytes

_HEAD, _BODY, _WORK, _IDLE = Phase.HEAD, Phase.BODY, Phase.WORK, Phase.IDLE
_MAX_QUEUED = 16
"""So many pipelined requests may wait before we stop reading."""
_REFUSALS = 256
"""So many connections beyond the limit are told so; those beyond them are just closed."""


class HttpConnection(Line):
    """Time limits per phase, caps on the head, pipelining, and error bodies of our shape.

    There are no timers per request: the listener calls `sweep` on each connection every so often,
    which notices when a connection has been waiting for the same thing for too long.
    """

    cycle: Exchange
    """The exchange whose request was parsed last; with pipelining not the one in work."""

    def __init__(
        self, server_state: ListenerState, app: AsgiApp, infer: InferEndpoint | None
    ) -> None:
        self.server_state = server_state
        self.http = server_state.http
        self.parser = new_parser(self)
        self.active: Exchange | None = None
        self._app = app
        self._infer = infer
        self._watch = PhaseWatch(server_state.limits_s)
        self._reader = ReaderWatch(self.http.write_timeout_s)
        self._queued: deque[Exchange] = deque()
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._fields: Mapping[bytes, bytes] = {}
        self._received = 0  # bytes in all
        self._before = 0  # those that came before what is being parsed
        self._began = 0  # those that had come when the first piece of this request did
        self._unparsed = 0  # bytes since the last that became a head or a body
        self._fault: ServeAppError | None = None
        self._discarding = False
        self._resuming = False
        self._starting = False

    # What the transport reports

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected."""
        self.transport = transport
        self.flow = FlowControl(transport)
        connections = self.server_state.connections
        connections.add(self)
        surplus = len(connections) - self.http.max_connections
        if surplus > _REFUSALS:
            transport.abort()
        elif surplus > 0:
            self._refuse(Overloaded("too many open connections"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: what it asked for is dropped."""
        self.server_state.connections.discard(self)
        self._discarding = True
        self._drop_queued()
        if self.active is not None:
            self.active.disconnect()
        self.flow.resume_writing()
        self.transport.close()
        self.parser = NO_PARSER  # ends a cycle of references; nothing is parsed any more

    def pause_writing(self) -> None:
        """The client does not take what we send."""
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        self.flow.resume_writing()
        if self._queued:
            self._start_queued()

    def data_received(self, data: bytes) -> None:
        """Takes bytes from the client."""
        if self._discarding:
            return
        size = len(data)
        self._before = self._received
        self._received += size
        self._unparsed += size
        rest: bytes | memoryview = data
        try:
            while rest:
                try:
                    self.parser.feed_data(rest)
                    break
                except httptools.HttpParserUpgrade as upgrade:
                    self._ignore_upgrade()
                    rest = memoryview(rest)[upgrade.args[0] :]
        except httptools.HttpParserError:
            self._refuse(self._fault or MalformedRequest("this is not a valid HTTP/1.1 request"))
            return
        active = self.active
        if active is not None and active.more_body and not active.response_complete:
            active.stall()
        if self._unparsed > self.http.max_header_bytes and self._watch.phase in (_HEAD, _BODY):
            self._refuse(head_too_large(self.http))

    def _ignore_upgrade(self) -> None:
        """Goes on with a request that asked for an upgrade, as if it had not.

        Some clients offer h2c with every first request. Upgrades are not served here, but the
        parser stops at them, before the body: a new one takes over, told of the body's framing.
        """
        self.parser = new_parser(self)
        if has_body(self._fields):
            self._resuming = True
            self.parser.feed_data(framing_head(self._fields))

    # What the parser reports

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self._resuming:
            return
        self._url = b""
        self._headers = []
        self._began = self._before
        self._watch.enter(_HEAD)

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        if not self._resuming:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; trailers after a chunked body come here as well, and nobody reads them."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is complete: the request starts, or waits for the one before it."""
        if self._resuming:
            self._resuming = False
            return
        parser = self.parser
        if self._discarding:
            return
        headers = self._headers
        self._fields = fields = dict(headers)
        version = parser.get_http_version()
        # The common head is found to be in order by a few comparisons.
        if (
            len(fields) != len(headers)
            or len(headers) > self.http.max_headers
            or self._received - self._began > self.http.max_header_bytes
            or version != "1.1"
            or b"host" not in fields
            or b"transfer-encoding" in fields
        ):
            try:
                check_head(self._url, headers, version, self.http)
            except ServeAppError as fault:
                self._fault = fault  # the parser hides what its callbacks raise
                raise
        keep_alive = version == "1.1" and parser.should_keep_alive()
        awaits_continue = b"expect" in fields and fields[b"expect"].lower() == b"100-continue"
        target = infer_target(self._url) if self._infer is not None else None
        exchange: Exchange
        if target is not None and self._infer is not None and parser.get_method() == b"POST":
            exchange = InferExchange(
                self,
                self._infer,
                target,
                fields,
                keep_alive=keep_alive,
                awaits_continue=awaits_continue,
            )
        else:
            scope = asgi_scope(self.transport, parser.get_method(), self._url, headers, version)
            exchange = AsgiExchange(
                self, self._app, scope, keep_alive=keep_alive, awaits_continue=awaits_continue
            )
        self.cycle = exchange
        self._unparsed = 0
        self._watch.phase = _BODY
        active = self.active
        if (active is None or active.response_complete) and not (
            self._queued or self.flow.write_paused
        ):
            self.active = exchange
            exchange.start()
        else:
            self._queued.append(exchange)
            if len(self._queued) >= _MAX_QUEUED:
                self.flow.pause_reading()

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._unparsed = 0
        if not self._discarding:
            try:
                self.cycle.feed(body)
            except Overloaded as fault:
                self._fault = fault
                raise

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._unparsed = 0
        if self._discarding:
            return
        if self.parser.should_upgrade() and has_body(self._fields):
            return
        self._complete()

    def _complete(self) -> None:
        self._watch.phase = _WORK
        self.cycle.complete()
        if self.flow.read_paused:
            self._read_on()

    def _read_on(self) -> None:
        if len(self._queued) < _MAX_QUEUED:
            self.flow.resume_reading()

    # What a body reports that goes past the parser

    def on_body_taken(self) -> None:
        """See `Line`."""
        self.parser = new_parser(self)  # the other one still waits for this body
        self._complete()

    def on_body_refused(self, fault: ServeAppError) -> None:
        """See `Line`."""
        self._refuse(fault)

    # What we answer

    def _start_queued(self) -> None:
        """Starts what waits, in a loop: thousands may, and be answered without waiting."""
        if self._starting:
            return
        self._starting = True
        queued = self._queued
        try:
            while queued and not self.flow.write_paused:
                if self.active is not None and not self.active.response_complete:
                    break
                exchange = self.active = queued.popleft()
                exchange.start()
                if exchange.more_body and not exchange.response_complete:
                    exchange.stall()
        finally:
            self._starting = False
        if not self._discarding:
            self._read_on()

    def _drop_queued(self) -> None:
        while self._queued:
            self._queued.popleft().release()

    def on_response_complete(self) -> None:
        """See `Line`."""
        if self.transport.is_closing():
            return
        active = self.active
        if active is None or not active.keep_alive:
            self._drop_queued()
            if self._discarding or (active is not None and active.more_body):
                self._linger()
            else:
                self._discarding = True
                self.transport.close()
            return
        if self._queued:
            self._start_queued()
        elif self.flow.read_paused:
            self.flow.resume_reading()
        if self._watch.phase is _WORK and active is self.cycle:
            self._watch.phase = _IDLE

    def _refuse(self, fault: ServeAppError) -> None:
        """Ends what the client sends: nothing after this point can be understood or waited for.

        A body that breaks off is answered by whoever waits for it. A broken request behind one that
        is still in work gets no answer of its own, only the end of the connection.
        """
        self._discarding = True
        self._watch.enter(_WORK)
        active = self.active
        if active is not None and not active.response_complete:
            self._drop_queued()
            active.keep_alive = False
            if active is self.cycle and active.more_body:
                active.fail(fault)
            return
        if not self._queued:
            path = self._url.decode("latin-1")
            status, headers, body = error_response(fault, path, request_id(None))
            self.transport.write(write_head(status, headers, self.server_state.date, CLOSE) + body)
        self._drop_queued()
        self._linger()

    def _linger(self) -> None:
        """Closes our side and lets the client finish reading.

        Closing at once while it still sends would reset the connection and take our answer away.
        """
        self._discarding = True
        self._watch.enter(Phase.LINGER)
        self.transport.set_protocol(self)  # a body no longer goes past the parser
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    # What the listener asks for

    def sweep(self, now: float) -> None:
        """Ends the connection if it has been waiting for too long, by the loop's time."""
        if self._watch.expired(now):
            self._time_out()
        if self._reader.expired(now, self.transport.get_write_buffer_size()):
            self.transport.abort()

    def _time_out(self) -> None:
        phase = self._watch.phase
        if phase is _HEAD:
            self._refuse(BodyTimeout("the head of the request did not arrive in time"))
        elif phase is _BODY:
            if self.flow.read_paused or self.cycle is not self.active:  # we are who makes it wait
                self._watch.enter(phase)
            else:
                self._refuse(BodyTimeout("the body of the request did not arrive in time"))
        elif phase is Phase.LINGER:
            if not self.transport.get_write_buffer_size():
                self.transport.abort()
        elif not unread_bytes(self.transport):
            self.transport.close()
