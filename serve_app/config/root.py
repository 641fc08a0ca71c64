"""The whole configuration, and the rules between its groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from serve_app.config.cluster import ClusterConfig, DatabaseConfig, LogConfig
from serve_app.config.ingress import IngressConfig
from serve_app.config.listener import GrpcConfig, HttpConfig, MetricsConfig
from serve_app.config.model import ModelConfig
from serve_app.config.schema import Schema
from serve_app.domain.release import faults
from serve_app.domain.tensor import Name

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Config(Schema):
    """One deploy: the composed and validated YAML of `configs/`."""

    env: Literal["local", "test", "production"]
    http: HttpConfig
    grpc: GrpcConfig
    metrics: MetricsConfig
    ingress: IngressConfig
    cluster: ClusterConfig
    database: DatabaseConfig
    log: LogConfig
    models: dict[Name, ModelConfig] = Field(min_length=1)

    @model_validator(mode="after")
    def _between_groups(self) -> Config:
        problems = [*self._versions(), *self._ports(), *self._admin()]
        if problems:
            raise ValidationError.from_exception_data("Config", problems)
        return self

    def _versions(self) -> Iterator[InitErrorDetails]:
        for name, model in self.models.items():
            outputs = [spec.name for spec in model.outputs]
            for place, text in faults(model.release, model.versions, outputs):
                yield _problem(("models", name, "release", *place), text, None)
            inputs = {spec.name for spec in model.inputs}
            for version, settings in model.versions.items():
                where = ("models", name, "versions", version)
                for key in settings.warm_up:
                    if key not in inputs:
                        yield _problem(
                            (*where, "warm_up", key),
                            f'"{key}" is not an input of {name}. Declared: {", ".join(inputs)}.',
                            key,
                        )
                artifact = settings.artifact
                if self.env == "production" and artifact is not None and artifact.sha256 is None:
                    yield _problem(
                        (*where, "artifact", "sha256"),
                        "env=production needs the sha256 of every artifact. It is printed by: "
                        f"python -m serve_app.artifacts hash {artifact.uri}",
                        None,
                    )

    def _ports(self) -> Iterator[InitErrorDetails]:
        ports = [("http", self.http.port)]
        ports += [("grpc", self.grpc.port)] * self.grpc.enabled
        ports += [("metrics", self.metrics.port)] * self.metrics.enabled
        for index, (group, port) in enumerate(ports):
            for other, taken in ports[:index]:
                if port == taken:
                    yield _problem((group, "port"), f"{port} is also {other}.port.", port)

    def _admin(self) -> Iterator[InitErrorDetails]:
        """Nobody is authenticated yet, so only this machine may change releases."""
        if self.http.admin and self.http.host not in LOOPBACK:
            yield _problem(
                ("http", "admin"),
                f"must be false where http.host is {self.http.host}: everyone who reaches the port "
                "could change traffic and run code, as clients are not authenticated yet.",
                self.http.admin,
            )


def _problem(loc: tuple[str | int, ...], text: str, value: object) -> InitErrorDetails:
    kind = PydanticCustomError("inconsistent", "{text}", {"text": text})
    return InitErrorDetails(type=kind, loc=loc, input=value)
