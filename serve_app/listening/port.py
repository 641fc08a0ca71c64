"""A listening socket that several processes of a node may share."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from serve_app.errors import ClusterError
from serve_app.listening.handshake_filter import finish_handshakes


class Port:
    """Binds an address, accepts, and stops accepting without resetting anybody."""

    def __init__(self, host: str, port: int, backlog: int, group: str) -> None:
        """Opens nothing yet.

        Args:
            host: the address.
            port: its port.
            backlog: connections that may wait to be accepted.
            group: the group of the config that sets the address, for messages.
        """
        self._host = host
        self._port = port
        self._backlog = backlog
        self._group = group
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None

    @property
    def open(self) -> bool:
        """Whether new connections are accepted."""
        return self._server is not None and self._server.is_serving()

    async def start(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        """Binds and accepts.

        Args:
            protocol: makes what speaks on each connection.

        Raises:
            ClusterError: the address cannot be bound.
        """
        self._protocol = protocol
        self._socket = await self._bind()
        self._server = await asyncio.get_running_loop().create_server(
            protocol, sock=self._socket, backlog=self._backlog
        )

    async def _bind(self) -> socket.socket:
        listening: socket.socket | None = None
        try:
            family, kind, protocol, _, address = (
                await asyncio.get_running_loop().getaddrinfo(
                    self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
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
                f"cannot listen on {self._host}:{self._port}: {exc.strerror}; "
                f"another port can be set with {self._group}.port="
            ) from exc
        listening.setblocking(False)
        return listening

    async def close(self) -> None:
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
            while len(waiting) < self._backlog:
                waiting.append(listening.accept()[0])
        for client in waiting:
            client.setblocking(False)
            with contextlib.suppress(OSError):
                await loop.connect_accepted_socket(self._protocol, client)
