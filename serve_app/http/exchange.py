"""One request and its response on a connection: what its two kinds share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from serve_app.domain.raw_tensor import Buffer
from serve_app.errors import Overloaded, ServeAppError
from serve_app.http.listener_state import ListenerState

CLOSE = b"connection: close\r\n"
_JOIN_LIMIT = 64 * 1024
"""Larger bodies are not copied behind their head."""
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


def send_together(
    transport: asyncio.WriteTransport, head: bytes, parts: Sequence[Buffer], size: int
) -> None:
    """Writes a head and a body of so many bytes, in one piece unless that would copy much."""
    if size > _JOIN_LIMIT:
        transport.write(head)
        transport.writelines(parts)
    else:
        transport.write(b"".join((head, *parts)))


class Line(asyncio.Protocol):
    """What an exchange needs of its connection."""

    transport: asyncio.Transport
    flow: FlowControl
    server_state: ListenerState

    def on_response_complete(self) -> None:
        """The response of the exchange whose turn it is has been written."""
        raise NotImplementedError

    def on_body_taken(self) -> None:
        """The body of that exchange has been received past the parser, to its last byte."""
        raise NotImplementedError

    def on_body_refused(self, fault: ServeAppError) -> None:
        """The rest of that body cannot be received."""
        raise NotImplementedError


class Exchange:
    """A request that comes in, and the response to it.

    The connection calls `start` when it is this exchange's turn to be answered, `feed`, `complete`
    and `fail` as its body comes, perhaps before its turn, `stall` whenever everything that was read
    has been parsed and the body is not complete, and `disconnect` if the client goes away.
    """

    __slots__ = (
        "_awaits_continue",
        "_held",
        "_line",
        "_listener",
        "keep_alive",
        "more_body",
        "response_complete",
    )

    def __init__(self, line: Line, *, keep_alive: bool, awaits_continue: bool) -> None:
        self._line = line
        self._listener = line.server_state
        self._held = 0  # this request's share of what the listener holds
        self._awaits_continue = awaits_continue
        self.keep_alive = keep_alive
        self.more_body = True
        self.response_complete = False

    def start(self) -> None:
        """It is this request's turn."""
        raise NotImplementedError

    def feed(self, chunk: bytes) -> None:
        """Takes a piece of the body.

        Raises:
            Overloaded: all requests of this listener together hold too much.
        """
        raise NotImplementedError

    def complete(self) -> None:
        """The body has come to its end."""
        raise NotImplementedError

    def fail(self, fault: ServeAppError) -> None:
        """The rest of the body will not come: the request is answered with this error."""
        raise NotImplementedError

    def stall(self) -> None:
        """The rest of the body has yet to be sent; only while it is this request's turn."""

    def disconnect(self) -> None:
        """The client is gone: nobody needs the answer."""
        raise NotImplementedError

    def release(self) -> None:
        """Gives back this request's share of what the listener holds; may be called again."""
        self._listener.buffered -= self._held
        self._held = 0

    def hold(self, size: int) -> None:
        """Adds to this request's share of what the listener holds.

        Raises:
            Overloaded: all requests of this listener together hold too much.
        """
        listener = self._listener
        buffered = listener.buffered + size
        if buffered > listener.http.max_buffered_bytes:
            raise Overloaded("the bodies of all requests in work are too large together")
        listener.buffered = buffered
        self._held += size

    def _ask(self) -> None:
        """Lets more of the body come."""
        line = self._line
        line.flow.resume_reading()
        if self._awaits_continue and not line.transport.is_closing():
            self._awaits_continue = False
            line.transport.write(_CONTINUE)

    def _finish(self) -> None:
        """The response has been written."""
        self.response_complete = True
        self.release()
        self._line.on_response_complete()
