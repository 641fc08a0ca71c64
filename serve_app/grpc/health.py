"""The standard health service, which follows the data plane's readiness."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
from grpc_health.v1 import health, health_pb2

from serve_app.dataplane import DataPlane
from serve_app.errors import Overloaded
from serve_app.grpc.call import Context, abort, caller
from serve_app.grpc.servicer import SERVICE

_NAMES = ("", SERVICE)
_MAX_WATCHES = 100
"""Streams at a time. They last, and share with `Check` what RPCs there may be beside inference."""
_PERIOD_S = 0.25
_LAST_WORD_S = 0.05


class Health:
    """`grpc.health.v1.Health` for the server as a whole and for the inference service."""

    def __init__(self, dataplane: DataPlane) -> None:
        self._dataplane = dataplane
        self._servicer = health.aio.HealthServicer()
        self._shown: bool | None = None
        self._follower: asyncio.Task[None] | None = None
        self._streams: set[asyncio.Task[None]] = set()

    def handlers(self) -> grpc.GenericRpcHandler:
        """What `grpc.aio.Server` needs to serve it."""
        request, response = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse

        async def check(message: object, context: object) -> object:
            await self._refresh()  # a probe must not read what was true a moment ago
            return await self._servicer.Check(message, context)

        async def watch(message: object, context: Context) -> None:
            if len(self._streams) >= _MAX_WATCHES:
                full = Overloaded(f"{_MAX_WATCHES} streams watch already: use Check")
                await abort(context, full, caller(context).request_id, "")
            stream = asyncio.create_task(self._servicer.Watch(message, context))
            self._streams.add(stream)
            try:
                await asyncio.wait({stream})
            finally:
                self._streams.discard(stream)
                stream.cancel()

        return grpc.method_handlers_generic_handler(
            health.SERVICE_NAME,
            {
                "Check": grpc.unary_unary_rpc_method_handler(
                    check, request.FromString, response.SerializeToString
                ),
                "Watch": grpc.unary_stream_rpc_method_handler(
                    watch, request.FromString, response.SerializeToString
                ),
            },
        )

    async def start(self) -> None:
        """Begins to follow the data plane."""
        await self._refresh()
        self._follower = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Says NOT_SERVING from now on, also to those who watch, and ends their streams.

        An open stream would hold its connection for as long as the drain may take.
        """
        if self._follower is not None:
            self._follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._follower
        await self._servicer.enter_graceful_shutdown()
        await asyncio.sleep(_LAST_WORD_S)
        for stream in self._streams:
            stream.cancel()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_PERIOD_S)
            await self._refresh()

    async def _refresh(self) -> None:
        ready = self._dataplane.ready
        if ready is self._shown:
            return
        self._shown = ready
        states = health_pb2.HealthCheckResponse
        for name in _NAMES:
            await self._servicer.set(name, states.SERVING if ready else states.NOT_SERVING)
