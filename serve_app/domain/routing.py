"""The route table and the pure function that chooses a version.

`ModelRouter` compiles the table and publishes it; every ingress holds a copy and chooses from it
in its own process. Two ingresses with the same table choose the same version for the same key.
"""

from __future__ import annotations

from binascii import crc32
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from serve_app.domain.inference import VersionKey
from serve_app.domain.tensor import Name, TensorSpec
from serve_app.errors import ModelNotFound, NotReady, VersionNotFound


class Candidate(BaseModel):
    """One version and its share of a model's traffic."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Name
    weight: int = Field(ge=0, le=100, description="percent of the model's traffic")


class BatchingPolicy(BaseModel):
    """How requests for one version are gathered into batches in each ingress."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    adaptive: bool = Field(
        True, description="learn slots, rows and holds from each batch; the numbers here are caps"
    )
    max_rows: int = Field(256, ge=1, le=65536, description="most rows in one batch")
    max_wait_ms: float = Field(
        0.0,
        ge=0,
        le=10_000,
        description="wait this long for a fuller batch even if a slot is free; 0 leaves it to "
        "adaptive",
    )
    max_queue_rows: int = Field(4096, ge=1, description="rows that may wait; beyond: 503")
    max_queue_bytes: int = Field(
        256 * 1024 * 1024, ge=1, description="payload bytes that may wait; beyond: 503"
    )
    slots_per_replica: int = Field(
        2, ge=1, le=64, description="most batches in flight per replica, all ingresses together"
    )


class Endpoint(NamedTuple):
    """Where one replica listens for batches on the direct channel."""

    node: str
    """The node that it runs on: only ingresses there can reach it."""
    path: str
    """Of its Unix socket."""
    replica: str
    """Identity of the replica, which the channel's greeting repeats."""
    capacity: int
    """Batches that it works on at a time, all ingresses together."""


@dataclass(frozen=True, slots=True)
class VersionRoute:
    """One version as an ingress sees it."""

    key: VersionKey
    application: str
    platform: str
    batching: BatchingPolicy
    timeout_s: float
    replicas: int
    """Replicas that are ready; 0 means that no request may be sent there."""
    idempotent: bool = True
    metadata: Mapping[str, str] = field(default_factory=dict)
    endpoints: tuple[Endpoint, ...] = ()
    """Direct channels of the replicas that have announced one; the others are reached by handle."""


@dataclass(frozen=True)
class ModelRoute:
    """One model: its signature, its versions, and how traffic is shared among them."""

    name: str
    description: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    versions: Mapping[str, VersionRoute]
    candidates: tuple[Candidate, ...]

    @cached_property
    def batchable(self) -> bool:
        """Whether rows of several requests may share one call: every first dimension is -1."""
        return all(spec.shape[:1] == (-1,) for spec in (*self.inputs, *self.outputs))

    @cached_property
    def row_inputs(self) -> tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]:
        """Name, dtype and shape of one row of each input; empty unless every row is alike."""
        specs = self.inputs if self.batchable else ()
        if any(-1 in spec.shape[1:] for spec in specs):
            return ()
        return tuple((spec.name, spec.dtype, spec.shape[1:]) for spec in specs)

    @cached_property
    def arms(self) -> tuple[tuple[int, VersionRoute], ...]:
        """Cumulative weights over the candidates that are ready.

        Traffic of a candidate that is not ready falls to the ready ones in proportion to their
        weights; if none with a weight is ready, nothing is.
        """
        arms: list[tuple[int, VersionRoute]] = []
        total = 0
        for candidate in self.candidates:
            route = self.versions[candidate.version]
            if candidate.weight and route.replicas:
                total += candidate.weight
                arms.append((total, route))
        return tuple(arms)

    @property
    def ready(self) -> bool:
        """Whether a request that names no version can be answered."""
        return bool(self.arms)


@dataclass(frozen=True, slots=True)
class RouteTable:
    """Everything that an ingress needs to know about models, at one revision."""

    revision: int
    """Grows with every change, also across restarts of the router."""
    models: Mapping[str, ModelRoute] = field(default_factory=dict)
    ingresses: int = 1
    """How many ingress replicas share the replicas' slots."""

    def model(self, name: str) -> ModelRoute:
        """Looks a model up; raises ModelNotFound."""
        try:
            return self.models[name]
        except KeyError:
            raise ModelNotFound(name) from None

    def version(self, model: str, version: str) -> VersionRoute:
        """Looks a version up, ready or not; raises ModelNotFound or VersionNotFound."""
        try:
            return self.model(model).versions[version]
        except KeyError:
            raise VersionNotFound(model, version) from None


EMPTY_TABLE = RouteTable(revision=0)


def choose_version(model: ModelRoute, pinned: str | None, key: str) -> VersionRoute:
    """Chooses the version that answers a request.

    Pure and deterministic: the same table and key give the same version in every process.

    Args:
        model: the model's route.
        pinned: the version in the request's path, which bypasses the weights.
        key: what the assignment sticks to (the request id when nothing else is known).

    Raises:
        VersionNotFound: `pinned` is not a version of this model.
        NotReady: the pinned version, or every version with a weight, has no ready replica.
    """
    if pinned is not None:
        route = model.versions.get(pinned)
        if route is None:
            raise VersionNotFound(model.name, pinned)
        if not route.replicas:
            raise NotReady(f"version {pinned!r} of model {model.name!r} is not ready")
        return route
    arms = model.arms
    if not arms:
        raise NotReady(f"model {model.name!r} has no version that is ready")
    if len(arms) == 1:
        return arms[0][1]
    point = crc32(key.encode(), crc32(model.name.encode())) % arms[-1][0]
    for upper, route in arms:
        if point < upper:
            return route
    raise AssertionError("a point below the last bound always has an arm")
