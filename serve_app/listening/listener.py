"""A port and its connections: looked after every so often, and drained in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set
from typing import Protocol

from serve_app.listening.port import Port

_SWEEPS_PER_TIMEOUT = 4
_SWEEP_S = 1.0
_DRAIN_SWEEP_S = 0.05


class Connection(Protocol):
    """What a listener asks of a connection."""

    @property
    def transport(self) -> asyncio.Transport:
        """What it speaks through."""

    def sweep(self, now: float) -> None:
        """Ends it if it has been waiting for too long, by the loop's time."""


class Connections(Protocol):
    """What all connections of one listener share."""

    @property
    def connections(self) -> Set[Connection]:
        """Those that are open."""

    def tick(self) -> None:
        """Hears that time has passed, before each sweep."""

    def drain(self, timeout_s: float) -> None:
        """Lets every connection end as soon as it can; it is cut after `timeout_s`."""


class Listener:
    """Serves one port on the running loop, without signal handlers and timers per request."""

    def __init__(
        self,
        port: Port,
        state: Connections,
        connect: Callable[[], asyncio.Protocol],
        shortest_timeout_s: float,
    ) -> None:
        """Opens nothing yet.

        Args:
            port: where to listen.
            state: keeps the connections.
            connect: makes a new one, which adds itself to the state.
            shortest_timeout_s: of those that a sweep may find expired.
        """
        self._port = port
        self._state = state
        self._connect = connect
        self._period_s = min(_SWEEP_S, shortest_timeout_s / _SWEEPS_PER_TIMEOUT)
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def open_connections(self) -> int:
        """Connections that are open now."""
        return len(self._state.connections)

    @property
    def listening(self) -> bool:
        """Whether new connections are accepted."""
        return self._port.open

    async def start(self) -> None:
        """Binds and starts to accept.

        Raises:
            ClusterError: the address cannot be bound.
        """
        await self._port.start(self._connect)
        self._sweeper = asyncio.create_task(self._keep_sweeping())

    async def _keep_sweeping(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            self._sweep()

    def _sweep(self) -> None:
        """Lets every connection notice that it has waited for too long."""
        self._state.tick()
        now = asyncio.get_running_loop().time()
        for connection in list(self._state.connections):
            connection.sweep(now)

    async def drain(self, timeout_s: float) -> None:
        """Stops accepting, answers what is in flight, and closes every connection.

        Args:
            timeout_s: connections that are open after this long are cut.
        """
        if self._sweeper is None:
            return
        self._sweeper.cancel()
        self._sweeper = None
        self._state.drain(timeout_s)
        await self._port.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while self._state.connections and loop.time() < deadline:
            self._sweep()
            await asyncio.sleep(_DRAIN_SWEEP_S)
        for connection in list(self._state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)
