"""ModelReplica: one process that holds one version of one model, and computes its batches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ray

from deployments import scaling
from deployments.announcer import Announcer
from deployments.arguments import ReplicaArguments, ReplicaSettings
from deployments.background import in_background
from deployments.process import set_up, settle
from serve_app.artifacts.fetch import fetch_artifact
from serve_app.config.model import ResourcesConfig
from serve_app.domain.inference import BatchResult, InferenceBatch, VersionKey
from serve_app.predictors.host import PredictorHost
from serve_app.predictors.predictor import LoadContext

logger = logging.getLogger(__name__)

POLITE_SHARE = 0.1
"""For so much of the time that a load may take, it leaves the CPU to others."""

STUCK_FACTOR = 2.0
"""A computation that runs this many times longer than any request may is taken for hung."""


class ModelReplica:
    """Loads, warms up, then computes; Serve starts, checks, scales and drains it.

    The constructor returns only when the model is loaded and its example has been computed, so a
    replica that Serve calls running is ready.
    """

    # Serve awaits an asynchronous constructor.
    async def __init__(self, arguments: ReplicaArguments) -> None:  # type: ignore[misc]
        self._host: PredictorHost | None = None
        self._announcer: Announcer | None = None
        self._drain_s = arguments.timeouts.drain_s
        self._node = ray.get_runtime_context().get_node_id()
        set_up(arguments.log, arguments.home, f"{arguments.model}@{arguments.version}")
        self._stuck_after_s = arguments.timeouts.request_s * STUCK_FACTOR
        load_s = arguments.timeouts.load_s
        async with asyncio.timeout(load_s):
            host = await in_background(partial(_load, arguments), POLITE_SHARE * load_s)
        self._host = host
        key = VersionKey(arguments.model, arguments.version)
        self._announcer = Announcer(key, host)
        settle()
        logger.info("ready", extra={"action": "load", "model": arguments.model})

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Takes settings in place (Serve's `user_config`), first right after the constructor."""
        settings = ReplicaSettings.model_validate(user_config)
        if self._announcer is not None:
            self._announcer.follow(settings.slots)

    async def predict(self, batch: InferenceBatch) -> BatchResult:
        """Computes one batch; failures of single members stand in the result."""
        if self._host is None:
            raise RuntimeError("called before load")
        return await self._host.run(batch)

    async def describe(self) -> Mapping[str, str]:
        """Facts about the loaded model, for the route table."""
        return self._host.describe() if self._host is not None else {}

    async def check_health(self) -> None:
        """Fails when a computation hangs or its thread is gone: Serve replaces this replica."""
        if self._host is not None and not self._host.worker.alive:
            raise RuntimeError("the compute thread has ended")
        if self._host is not None and self._host.stuck_for_s() > self._stuck_after_s:
            raise RuntimeError(f"a computation has run for more than {self._stuck_after_s:.0f} s")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What `deployments.scaling` decides by, averaged since the last call."""
        if self._host is None:
            return {}
        return scaling.stats(self._host.meter.sample(), self._node)

    async def __del__(self) -> None:
        """Serve awaits this once after the last handle call, also on a half-built replica."""
        announcer = getattr(self, "_announcer", None)
        if announcer is not None:
            await announcer.close(self._drain_s)
        host = getattr(self, "_host", None)
        if host is not None:
            await asyncio.to_thread(host.close)


def _load(arguments: ReplicaArguments) -> PredictorHost:
    """Fetches, loads and warms up; blocks until the predictor may take batches."""
    artifact = None
    if arguments.artifact is not None:
        artifact = fetch_artifact(arguments.artifact, Path(arguments.home) / "artifacts")
    context = LoadContext(
        artifact=artifact,
        device=device(arguments.resources),
        threads=max(1, int(arguments.resources.num_cpus)),
        inputs=arguments.inputs,
        outputs=arguments.outputs,
    )
    host = PredictorHost(f"{arguments.model}@{arguments.version}")
    host.load(arguments.predictor, context, arguments.warm_up)
    return host


def device(resources: ResourcesConfig) -> str:
    """The torch device of this replica: Ray shows it only the GPUs that it assigned.

    `auto` falls back to the CPU where Ray assigned no GPU, or torch can use none; `cuda` does not,
    so that the load fails loudly.
    """
    if resources.device != "auto":
        return "cuda:0" if resources.device == "cuda" else "cpu"
    if not ray.get_gpu_ids():
        return "cpu"
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"
