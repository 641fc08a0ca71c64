"""Fakes and builders, shipped so that our tests and users' tests share them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from serve_app.domain.inference import BatchResult, InferenceBatch, VersionKey
from serve_app.domain.release import Candidate, Release
from serve_app.domain.routing import BatchingPolicy, ModelRoute, RouteTable, VersionRoute
from serve_app.domain.tensor import Array, TensorSpec
from serve_app.telemetry.trace import RequestTrace

Compute = Callable[[VersionKey, Mapping[str, Array]], Mapping[str, Array]]


def identity(_key: VersionKey, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """Answers each input as an output of the same name."""
    return inputs


class FakeGateway:
    """Computes batches in this process and remembers them."""

    def __init__(self, compute: Compute = identity, delay_s: float = 0.0) -> None:
        self.compute = compute
        self.delay_s = delay_s
        self.batches: list[tuple[VersionKey, InferenceBatch]] = []
        self.wakes: list[VersionKey] = []
        self.awake = asyncio.Event()

    async def call(self, key: VersionKey, batch: InferenceBatch, timeout_s: float) -> BatchResult:
        """See `serve_app.domain.gateway.Gateway`."""
        self.batches.append((key, batch))
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        return BatchResult(self.compute(key, batch.inputs), {}, self.delay_s)

    async def wake(self, key: VersionKey) -> None:
        """See `serve_app.domain.gateway.Gateway`; returns when `awake` is set."""
        self.wakes.append(key)
        await self.awake.wait()


def model_route(
    name: str = "echo",
    *,
    inputs: tuple[TensorSpec, ...] = (TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),),
    outputs: tuple[TensorSpec, ...] | None = None,
    weights: Mapping[str, int] | None = None,
    replicas: Mapping[str, int] | None = None,
    batching: BatchingPolicy | None = None,
    timeout_s: float = 5.0,
    idempotent: bool = True,
    wakes: bool = False,
    **release: Any,
) -> ModelRoute:
    """A model whose outputs mirror its inputs unless given, with version 1 ready.

    Further fields of the release, such as `sticky` or `mirror`, go by their names.
    """
    weights = weights or {"1": 100}
    versions = {
        version: VersionRoute(
            key=VersionKey(name, version),
            application=f"{name}@{version}",
            platform="test",
            batching=batching or BatchingPolicy(),
            timeout_s=timeout_s,
            replicas=(replicas or {}).get(version, 1),
            idempotent=idempotent,
            asleep=wakes and (replicas or {}).get(version, 1) == 0,
        )
        for version in {**weights, **(replicas or {})}
    }
    return ModelRoute(
        name=name,
        description="a model for tests",
        inputs=inputs,
        outputs=inputs if outputs is None else outputs,
        versions=versions,
        release=Release(
            candidates=tuple(Candidate(version=v, weight=w) for v, w in weights.items()), **release
        ),
    )


def route_table(*models: ModelRoute, revision: int = 1) -> RouteTable:
    """A table of the given models, or of one echo model."""
    return RouteTable(revision, {model.name: model for model in models or (model_route(),)})


class RecordingTelemetry:
    """Remembers every finished request as (trace, status, code)."""

    def __init__(self) -> None:
        self.finished: list[tuple[RequestTrace, int, str]] = []

    def finish(self, trace: RequestTrace, status: int, code: str) -> None:
        """See `serve_app.telemetry.sink.Telemetry`."""
        self.finished.append((trace, status, code))
