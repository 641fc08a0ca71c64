"""What all connections of one listener share."""

from __future__ import annotations

from email.utils import formatdate
from enum import IntEnum
from time import time
from typing import TYPE_CHECKING

from serve_app.config.listener import HttpConfig

if TYPE_CHECKING:
    from serve_app.http.connection import HttpConnection

LINGER_S = 2.0
DRAIN_IDLE_S = 5.0
"""So long a connection may have been idle before a drain closes it.

A request that meets the close on its way is lost: nothing that a server can send then would answer
it, and clients do not repeat a POST on their own. A client that takes turns with its connections
uses each every second or two; this leaves it the time to, and each answer then ends its connection.
One that has been silent for longer is unlikely to speak in just that moment. So a drain with such
connections alone ends at once, and no drain waits longer than this for connections without work.
"""


class Phase(IntEnum):
    """What a connection waits for."""

    OPENED = 0
    """Its first byte."""
    HEAD = 1
    """The rest of a request's head."""
    BODY = 2
    """The rest of a request's body."""
    WORK = 3
    """Our answer."""
    IDLE = 4
    """The next request."""
    LINGER = 5
    """That the client takes our last answer, while what it still sends is thrown away."""


class ListenerState:
    """Settings, time limits, and whether the listener is shutting down."""

    def __init__(self, http: HttpConfig) -> None:
        self.http = http
        self.connections: set[HttpConnection] = set()
        self.draining = False
        self.buffered = 0
        """Bytes of the bodies of all requests that have not been answered."""
        self.limits_s = {
            Phase.OPENED: http.header_timeout_s,
            Phase.HEAD: http.header_timeout_s,
            Phase.BODY: http.body_timeout_s,
            Phase.WORK: float("inf"),
            Phase.IDLE: http.idle_timeout_s,
            Phase.LINGER: LINGER_S,
        }
        self.tick()

    def tick(self) -> None:
        """Renews the date header."""
        self.date = f"date: {formatdate(time(), usegmt=True)}\r\n".encode()
        self.ok = b"HTTP/1.1 200 OK\r\n" + self.date

    def drain(self, timeout_s: float) -> None:
        """From now on every response ends its connection, and idle ones are closed earlier.

        Args:
            timeout_s: how long the drain may take; idle connections get half of it at most.
        """
        self.draining = True
        idle_s = min(DRAIN_IDLE_S, timeout_s / 2)
        self.limits_s[Phase.OPENED] = min(self.limits_s[Phase.OPENED], idle_s)
        self.limits_s[Phase.IDLE] = min(self.limits_s[Phase.IDLE], idle_s)
