"""The gRPC server of one ingress process."""

from __future__ import annotations

import asyncio
from time import monotonic

from grpc import aio

from serve_app.config.ingress import RequestLimits
from serve_app.config.listener import GrpcConfig
from serve_app.dataplane import DataPlane
from serve_app.errors import ClusterError
from serve_app.grpc.health import Health
from serve_app.grpc.servicer import Servicer
from serve_app.grpc.sockets import has_connections, listening, stop_accepting
from serve_app.telemetry.sink import Telemetry

_SIDE_RPCS = 128
"""RPCs beside inference, health checks above all, that still run when inference is at its cap."""

_PENDING_RPCS = 32 * 1024
_METADATA_BYTES = 16 * 1024
_MIN_PING_MS = 10_000
_DEAD_PEER_MS = 60_000
_HANDSHAKE_MS = 10_000
_LAST_REQUESTS_S = 5.0
_LOOK_S = 0.25


class GrpcListener:
    """Serves the Open Inference Protocol and health checks on one port.

    Several processes share the port (SO_REUSEPORT). Belongs to one event loop.
    """

    def __init__(
        self,
        dataplane: DataPlane,
        grpc: GrpcConfig,
        limits: RequestLimits,
        telemetry: Telemetry,
    ) -> None:
        self._config = grpc
        self._health = Health(dataplane)
        self._servicer = Servicer(
            dataplane,
            limits,
            telemetry,
            max_concurrent=grpc.max_concurrent_rpcs,
            max_message_bytes=grpc.max_message_bytes,
        )
        self._server: aio.Server | None = None
        self._sockets: set[int] = set()

    async def start(self) -> None:
        """Binds the port and serves.

        Raises:
            ClusterError: the port cannot be bound.
        """
        server = aio.server(
            options=_options(self._config),
            maximum_concurrent_rpcs=self._config.max_concurrent_rpcs + _SIDE_RPCS,
        )
        server.add_generic_rpc_handlers((self._servicer.handlers(), self._health.handlers()))
        address = _address(self._config)
        others = listening(self._config.port)
        try:
            server.add_insecure_port(address)
        except RuntimeError as exc:
            raise ClusterError(
                f"cannot listen for gRPC on {address}: is port {self._config.port} in use?"
            ) from exc
        self._sockets = listening(self._config.port) - others
        await server.start()
        await self._health.start()
        self._server = server

    async def drain(self, timeout_s: float) -> None:
        """Moves the clients elsewhere without losing a request, then stops.

        gRPC's own stop cancels requests that cross its GOAWAY on the way. So this process stops
        accepting first and goes on answering until every connection has reached its maximum age,
        which makes its client open the next one to another process. Without a maximum age, or
        past `timeout_s`, gRPC's own stop has to do.

        Args:
            timeout_s: requests that take longer than this are cancelled.
        """
        if self._server is None:
            return
        server, self._server = self._server, None
        stop_at = monotonic() + timeout_s
        await self._health.stop()
        if self._config.max_connection_age_s is not None:
            stop_accepting(self._sockets)
            patience_s = timeout_s - min(_LAST_REQUESTS_S, timeout_s / 2)
            await self._outlive_connections(monotonic() + patience_s)
        await server.stop(max(0.0, stop_at - monotonic()))

    async def _outlive_connections(self, until: float) -> None:
        while monotonic() < until:
            if not has_connections(self._config.port):
                return
            await asyncio.sleep(_LOOK_S)


def _address(config: GrpcConfig) -> str:
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"{host}:{config.port}"


def _options(config: GrpcConfig) -> list[tuple[str, int]]:
    options = [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", config.max_message_bytes),
        ("grpc.max_metadata_size", _METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", 2 * _METADATA_BYTES),
        # Beyond these gRPC would cancel calls at random, where we say that they may come back.
        ("grpc.server.max_pending_requests", _PENDING_RPCS),
        ("grpc.server.max_pending_requests_hard_limit", _PENDING_RPCS),
        # Clients may ping this often; who pings more is cut off.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _MIN_PING_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        # A peer that vanished without a word does not hold its requests for ever.
        ("grpc.keepalive_time_ms", _DEAD_PEER_MS),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
    ]
    if config.max_connection_age_s is not None:
        options.append(("grpc.max_connection_age_ms", round(config.max_connection_age_s * 1000)))
    return options
