"""A replica's direct channel in the cluster: opened, announced to ModelRouter, taken back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.endpoints import ANNOUNCE_S
from deployments.naming import GATEWAY, ROUTER
from serve_app.channel.server import ChannelServer
from serve_app.channel.socket_path import new_socket_path, remove_stale_sockets, socket_folder
from serve_app.domain.inference import VersionKey
from serve_app.domain.routing import Endpoint
from serve_app.errors import ClusterError
from serve_app.predictors.host import PredictorHost

logger = logging.getLogger(__name__)

_CALL_TIMEOUT_S = 2.0


class Announcer:
    """Opens the channel of one replica and keeps it in the route table while it serves.

    Without a channel (no folder for the socket) the replica is reached by its handle alone.
    """

    def __init__(self, key: VersionKey, host: PredictorHost) -> None:
        self._key = key
        self._server: ChannelServer | None = None
        self._endpoint: Endpoint | None = None
        self._router: DeploymentHandle[Any] | None = None
        try:
            folder = socket_folder()
            remove_stale_sockets(folder)
            path = new_socket_path(folder)
            replica = serve.get_replica_context().replica_id.unique_id
            self._server = ChannelServer(host.worker, host.compute, path, replica, host.meter)
            node = ray.get_runtime_context().get_node_id()
            self._endpoint = Endpoint(node, str(path), replica, capacity=1)
        except (ClusterError, OSError):
            logger.exception("no direct channel", extra={"action": "channel"})
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._announce())

    def follow(self, slots: int) -> None:
        """Announces this capacity from now on."""
        if self._endpoint is not None:
            self._endpoint = self._endpoint._replace(capacity=slots)
            self._changed.set()

    async def close(self, drain_s: float) -> None:
        """Takes the endpoint back, then waits until every call has been answered."""
        self._task.cancel()
        if self._server is None or self._endpoint is None:
            return
        with contextlib.suppress(Exception):  # the ingresses hear it on the channel, too
            async with asyncio.timeout(_CALL_TIMEOUT_S):
                await (await self._handle()).withdraw.remote(self._endpoint.replica)
        await self._server.drain(drain_s)

    async def _announce(self) -> None:
        while self._endpoint is not None:
            self._changed.clear()
            try:
                async with asyncio.timeout(_CALL_TIMEOUT_S):
                    await (await self._handle()).announce.remote(self._key, self._endpoint)
            except Exception as error:
                # There may be no router yet, or for a while; handles work meanwhile.
                logger.info("not announced: %r", error, extra={"action": "channel"})
                self._router = None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), ANNOUNCE_S)

    async def _handle(self) -> DeploymentHandle[Any]:
        if self._router is None:
            self._router = await asyncio.to_thread(serve.get_deployment_handle, ROUTER, GATEWAY)
        return self._router
