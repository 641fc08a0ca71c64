"""Receives the rest of a large body straight into its place: only the kernel copies its bytes.

While it does, the transport speaks to it instead of the connection and its parser, which would make
three copies of every piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from serve_app.errors import Overloaded
from serve_app.http.exchange import Exchange, Line

LARGE = 64 * 1024
"""So much of a body must have come, and be missing, before the change of protocol pays."""


class BodyIntake(asyncio.BufferedProtocol):
    """Takes in one body of known length; what follows it is left to the connection."""

    def __init__(self, line: Line, exchange: Exchange, size: int, chunks: Sequence[bytes]) -> None:
        """Takes over the transport.

        Args:
            line: the connection.
            exchange: the request whose body this is; accounts for its bytes.
            size: of the whole body.
            chunks: what has come of it; less than the whole.
        """
        self._line = line
        self._exchange = exchange
        # Memory of which only as much is real as has been written to: an announced length that
        # never comes costs none.
        self._whole = np.empty(size, np.uint8).data
        self._free = self._whole
        for chunk in chunks:
            self._free[: len(chunk)] = chunk
            self._free = self._free[len(chunk) :]
        line.transport.set_protocol(self)

    @property
    def body(self) -> memoryview:
        """The whole body, once it is complete."""
        return self._whole.toreadonly()

    def get_buffer(self, sizehint: int) -> memoryview:
        """See `asyncio.BufferedProtocol`."""
        return self._free

    def buffer_updated(self, nbytes: int) -> None:
        """See `asyncio.BufferedProtocol`."""
        self._free = self._free[nbytes:]
        line = self._line
        try:
            self._exchange.hold(nbytes)
        except Overloaded as fault:
            line.transport.set_protocol(line)
            line.on_body_refused(fault)
            return
        if not self._free:
            line.transport.set_protocol(line)
            line.on_body_taken()

    def eof_received(self) -> None:
        """See `asyncio.BufferedProtocol`."""
        self._line.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BufferedProtocol`."""
        self._line.connection_lost(exc)

    def pause_writing(self) -> None:
        """See `asyncio.BufferedProtocol`."""
        self._line.pause_writing()

    def resume_writing(self) -> None:
        """See `asyncio.BufferedProtocol`."""
        self._line.resume_writing()
