"""The gRPC listener: a socket that several ingress replicas of a node may share."""

from __future__ import annotations

from serve_app.config.ingress import RequestLimits
from serve_app.config.listener import GrpcConfig
from serve_app.dataplane import DataPlane
from serve_app.grpc.service import Service
from serve_app.http2.connection import Http2Connection
from serve_app.http2.limits import Limits
from serve_app.http2.state import Http2State
from serve_app.listening.listener import Listener
from serve_app.listening.port import Port
from serve_app.telemetry.sink import Telemetry

_SIDE_RPCS = 128
"""Calls beside inference, health checks above all, that one connection may have open."""
_BACKLOG = 2048


class GrpcListener(Listener):
    """Serves the Open Inference Protocol and health checks on one port."""

    def __init__(
        self,
        dataplane: DataPlane,
        grpc: GrpcConfig,
        limits: RequestLimits,
        telemetry: Telemetry,
    ) -> None:
        """Opens nothing yet.

        Args:
            dataplane: answers inference requests.
            grpc: address and caps.
            limits: caps on a request in any protocol.
            telemetry: hears of every call.
        """
        connection = Limits(
            max_connections=grpc.max_connections,
            max_streams=grpc.max_concurrent_rpcs + _SIDE_RPCS,
            max_buffered_bytes=grpc.max_buffered_bytes,
            max_connection_age_s=grpc.max_connection_age_s,
        )
        state = Http2State(connection)
        service = Service(dataplane, grpc, limits, telemetry, connection)
        self._health = service.health
        super().__init__(
            Port(grpc.host, grpc.port, _BACKLOG, "grpc"),
            state,
            lambda: Http2Connection(state, service),
            connection.shortest_s,
        )

    async def start(self) -> None:
        """See `Listener`."""
        await super().start()
        self._health.start()

    async def drain(self, timeout_s: float) -> None:
        """See `Listener`. Probes hear of it first."""
        self._health.stop()
        await super().drain(timeout_s)
