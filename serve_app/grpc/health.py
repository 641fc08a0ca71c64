"""The standard health service, which follows the data plane's readiness."""

from __future__ import annotations

import asyncio

from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from serve_app.dataplane import DataPlane
from serve_app.domain.raw_tensor import Buffer
from serve_app.errors import Overloaded, RouteNotFound
from serve_app.grpc import blocks
from serve_app.grpc.call import Call, CallSettings
from serve_app.grpc.head import CallHead
from serve_app.grpc.message import PREFIX_SIZE
from serve_app.grpc.names import SERVICE
from serve_app.grpc.unary_call import parse
from serve_app.http2.outlet import Outlet

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_NAMES = ("", SERVICE)
_MAX_WATCHES = 100
"""Streams at a time: they last."""
_PERIOD_S = 0.25


class Health:
    """`grpc.health.v1.Health` for the server as a whole and for the inference service."""

    def __init__(self, dataplane: DataPlane) -> None:
        self._dataplane = dataplane
        self.stopped = False
        self._follower: asyncio.Task[None] | None = None
        self.watches: set[WatchCall] = set()

    def check(self, request: HealthCheckRequest) -> HealthCheckResponse:
        """What is true now."""
        if request.service not in _NAMES:
            raise RouteNotFound(f"there is no service {request.service!r}")
        return HealthCheckResponse(status=self.status(request.service))

    def status(self, service: str) -> HealthCheckResponse.ServingStatus:
        """The state of a service, known or not."""
        if service not in _NAMES:
            return HealthCheckResponse.SERVICE_UNKNOWN
        if self._dataplane.ready and not self.stopped:
            return HealthCheckResponse.SERVING
        return HealthCheckResponse.NOT_SERVING

    def start(self) -> None:
        """Begins to follow the data plane."""
        self._follower = asyncio.create_task(self._follow())

    def stop(self) -> None:
        """Says NOT_SERVING from now on, also to those who watch, and ends their streams.

        An open stream would hold its connection for as long as the drain may take.
        """
        self.stopped = True
        if self._follower is not None:
            self._follower.cancel()
        for watch in list(self.watches):
            watch.tell()
            watch.leave()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_PERIOD_S)
            for watch in list(self.watches):
                watch.tell()


class WatchCall(Call):
    """Hears of every change, until it goes or the server does."""

    __slots__ = ("_health", "_service", "_told")

    def __init__(
        self,
        outlet: Outlet,
        stream_id: int,
        head: CallHead,
        settings: CallSettings,
        health: Health,
    ) -> None:
        super().__init__(outlet, stream_id, head, settings)
        self._health = health
        self._service = ""
        self._told = -1

    def on_message(self, message: Buffer) -> None:
        """See `Call`."""
        if len(self._health.watches) >= _MAX_WATCHES:
            raise Overloaded(f"{_MAX_WATCHES} streams watch already: use Check")
        self._service = parse(HealthCheckRequest, message).service
        self._health.watches.add(self)
        self.begin(blocks.RESPONSE)
        self.tell()
        if self._health.stopped:
            self.leave()

    def on_cancel(self) -> None:
        """See `Call`."""
        self._health.watches.discard(self)

    def tell(self) -> None:
        """Sends the state if it is another than before."""
        status = self._health.status(self._service)
        if status != self._told:
            self._told = status
            message = HealthCheckResponse(status=status).SerializeToString()
            self.push(len(message).to_bytes(PREFIX_SIZE, "big") + message)

    def leave(self) -> None:
        """Ends the stream."""
        self._health.watches.discard(self)
        self.end(blocks.OK)
