"""What all connections of one listener share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from serve_app.http2.limits import Limits

if TYPE_CHECKING:
    from serve_app.http2.connection import Http2Connection


class Http2State:
    """Limits, and whether the listener is shutting down."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.connections: set[Http2Connection[Any]] = set()
        self.draining = False
        self.buffered = 0
        """Bytes of all requests that have not been answered, and of answers not sent."""

    def tick(self) -> None:
        """Nothing here depends on the time of day."""

    def drain(self, timeout_s: float) -> None:
        """Asks every peer to connect elsewhere; what it has begun is answered."""
        self.draining = True
        for connection in list(self.connections):
            connection.retire()
