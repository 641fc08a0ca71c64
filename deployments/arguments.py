"""The typed arguments of each Serve application: slices of the config that cross processes as JSON.

They stand in the Serve document (`args` and `user_config`), which anybody with access to the
dashboard can read: nothing secret may ever be in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from serve_app.config.cluster import DatabaseConfig, LogConfig, Transport
from serve_app.config.ingress import IngressConfig
from serve_app.config.listener import GrpcConfig, HttpConfig, MetricsConfig
from serve_app.config.model import (
    ArtifactConfig,
    ModelConfig,
    PredictorConfig,
    ResourcesConfig,
    TimeoutsConfig,
)
from serve_app.config.schema import Schema
from serve_app.domain.tensor import Name, TensorSpec


class GatewayArguments(Schema):
    """The application `gateway`: Ingress and ModelRouter."""

    http: HttpConfig
    grpc: GrpcConfig
    metrics: MetricsConfig
    ingress: IngressConfig
    log: LogConfig
    home: str
    status_poll_s: float
    transport: Transport
    database: DatabaseConfig


class RouterSettings(Schema):
    """The live part of ModelRouter: changed in place, no replica restarts."""

    models: Mapping[Name, ModelConfig] = Field(default_factory=dict)


class ReplicaSettings(Schema):
    """The live part of ModelReplica: changed in place, no replica restarts."""

    slots: int = 1


class ReplicaArguments(Schema):
    """One model version: what a replica needs to load and serve it, and nothing more.

    Serve restarts an application whose arguments change, so replicas, batching and traffic stay
    out: those change in place.
    """

    model: Name
    version: Name
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    predictor: PredictorConfig
    artifact: ArtifactConfig | None
    resources: ResourcesConfig
    timeouts: TimeoutsConfig
    warm_up: dict[Name, Any]
    log: LogConfig
    home: str
