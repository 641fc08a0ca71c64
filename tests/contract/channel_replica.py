"""The replica's end of the direct channel in this process: a real host behind a real socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

from serve_app.channel.server import ChannelServer
from serve_app.config.model import PredictorConfig
from serve_app.domain.batching_policy import BatchingPolicy
from serve_app.domain.inference import VersionKey
from serve_app.domain.routing import Endpoint, VersionRoute
from serve_app.domain.tensor import TensorSpec
from serve_app.predictors.host import PredictorHost
from serve_app.predictors.predictor import LoadContext

NODE = "this-node"


class ChannelReplica:
    """One replica of a model that gives its inputs back; leave it with `stop`."""

    def __init__(
        self, path: Path, predictor: PredictorConfig, specs: tuple[TensorSpec, ...], slots: int = 2
    ) -> None:
        self.path = path
        self.host = PredictorHost(path.stem)
        self.host.load(
            predictor,
            LoadContext(artifact=None, device="cpu", threads=1, inputs=specs, outputs=specs),
        )
        self.endpoint = Endpoint(NODE, str(path), path.stem, slots)
        self.server = self.listen(path)

    def listen(self, path: Path) -> ChannelServer:
        """Another channel to the same model."""
        host = self.host
        return ChannelServer(host.worker, host.compute, path, self.path.stem, host.meter)

    async def stop(self) -> None:
        await self.server.drain(0.0)
        await asyncio.to_thread(self.host.close)


def route(key: VersionKey, *endpoints: Endpoint, replicas: int | None = None) -> VersionRoute:
    """A version whose replicas all have channels, unless there are more of them."""
    return VersionRoute(
        key=key,
        application=str(key),
        platform="test",
        batching=BatchingPolicy(),
        timeout_s=5.0,
        replicas=len(endpoints) if replicas is None else replicas,
        endpoints=endpoints,
    )
