"""The HTTP listener: a socket that several ingress replicas of a node may share."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from serve_app.config.listener import HttpConfig
from serve_app.errors import ClusterError
from serve_app.handshake_filter import finish_handshakes
from serve_app.http.asgi import AsgiApp
from serve_app.http.connection import HttpConnection
from serve_app.http.listener_state import ListenerState
from serve_app.http.v2.infer import InferEndpoint

_SWEEPS_PER_TIMEOUT = 4
_SWEEP_S = 1.0
_DRAIN_SWEEP_S = 0.05


class HttpListener:
    """Serves an ASGI application on the running loop, without signal handlers."""

    def __init__(
        self,
        app: AsgiApp,
        http: HttpConfig,
        group: str = "http",
        infer: InferEndpoint | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            app: what is served.
            http: address, caps and time limits.
            group: the group of the config that sets the address, for messages.
            infer: answers infer requests past the application.
        """
        self._http = http
        self._group = group
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._state = ListenerState(http)
        self._app = app
        self._infer = infer

    @property
    def _connections(self) -> set[HttpConnection]:
        return self._state.connections

    @property
    def open_connections(self) -> int:
        """Connections that are open now."""
        return len(self._connections)

    @property
    def listening(self) -> bool:
        """Whether new connections are accepted."""
        return self._server is not None and self._server.is_serving()

    async def start(self) -> None:
        """Binds and starts to accept.

        Raises:
            ClusterError: the address cannot be bound.
        """
        self._socket = await self._bind()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._connection, sock=self._socket, backlog=self._http.backlog
        )
        self._sweeper = asyncio.create_task(self._keep_sweeping())

    def _connection(self) -> HttpConnection:
        return HttpConnection(self._state, self._app, self._infer)

    async def _bind(self) -> socket.socket:
        host, port = self._http.host, self._http.port
        listening: socket.socket | None = None
        try:
            family, kind, protocol, _, address = (
                await asyncio.get_running_loop().getaddrinfo(
                    host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
                )
            )[0]
            listening = socket.socket(family, kind, protocol)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listening.bind(address)
        except OSError as exc:
            if listening is not None:
                listening.close()
            raise ClusterError(
                f"cannot listen on {host}:{port}: {exc.strerror}; "
                f"another port can be set with {self._group}.port="
            ) from exc
        listening.setblocking(False)
        return listening

    async def _keep_sweeping(self) -> None:
        shortest_s = min(*self._state.limits_s.values(), self._http.write_timeout_s)
        while True:
            await asyncio.sleep(min(_SWEEP_S, shortest_s / _SWEEPS_PER_TIMEOUT))
            self._sweep()

    def _sweep(self) -> None:
        """Lets every connection notice that it has waited for too long."""
        self._state.tick()
        now = asyncio.get_running_loop().time()
        for connection in list(self._connections):
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
        await self._stop_accepting()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while self._connections and loop.time() < deadline:
            self._sweep()
            await asyncio.sleep(_DRAIN_SWEEP_S)
        for connection in list(self._connections):
            connection.transport.abort()
        await asyncio.sleep(0)

    async def _stop_accepting(self) -> None:
        """Closes the listening socket, but first takes in whoever has begun to connect to it.

        The kernel resets connections that are not accepted when their socket closes.
        """
        if self._server is None or self._socket is None:
            return
        await finish_handshakes(self._socket)
        loop = asyncio.get_running_loop()
        listening = self._socket.dup()
        # asyncio drops connections that it has accepted but not set up when its server closes. So
        # it stops accepting first, and has this turn of the loop to finish. uvloop needs neither.
        loop.remove_reader(self._socket.fileno())
        await asyncio.sleep(0)
        self._server.close()
        waiting: list[socket.socket] = []
        with listening, contextlib.suppress(OSError):
            while len(waiting) < self._http.backlog:
                waiting.append(listening.accept()[0])
        for client in waiting:
            client.setblocking(False)
            with contextlib.suppress(OSError):
                await loop.connect_accepted_socket(self._connection, client)
