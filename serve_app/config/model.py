"""One model: its signature, its versions, its release. The group `model`, key `models.<name>`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from serve_app.config.schema import Schema
from serve_app.config.secret import without_password
from serve_app.domain.batching_policy import BatchingPolicy
from serve_app.domain.release import Release
from serve_app.domain.tensor import Name, TensorSpec

TARGET_PATTERN = r"^[A-Za-z_][\w]*(\.[A-Za-z_][\w]*)+$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"


class PredictorConfig(BaseModel):
    """Which predictor computes a version: a class by its import path, and its arguments.

    The arguments are checked by the predictor's own constructor.
    """

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    target: str = Field(
        alias="_target_", pattern=TARGET_PATTERN, description="import path of the class"
    )

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the predictor's constructor."""
        return dict(self.model_extra or {})


class ArtifactConfig(Schema):
    """Where a version's weights lie: a local path, `package://NAME/PATH`, or any fsspec URI."""

    uri: Annotated[str, AfterValidator(without_password)] = Field(
        min_length=1,
        description="credentials of a store come from the environment of each node",
    )
    sha256: Annotated[str, StringConstraints(pattern=SHA256_PATTERN)] | None = Field(
        None,
        description="of the file, or of a folder's manifest (python -m serve_app.artifacts hash)",
    )


class ResourcesConfig(Schema):
    """What Ray reserves for one replica."""

    num_cpus: float = Field(
        0.25, ge=0, description="also the threads that compute: rounded down, at least 1"
    )
    num_gpus: float = Field(0.0, ge=0, description="may be a fraction, such as 0.5")
    memory_mib: int = Field(
        0, ge=0, description="0: none is reserved. Ray keeps account of it, and enforces nothing"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: the GPU that Ray assigned, else the CPU"
    )


class ReplicasConfig(Schema):
    """How many replicas a version runs, and when it gets more."""

    min: int = Field(
        1,
        ge=0,
        le=1024,
        description="always running; 0: none when quiet, and the first request waits for a load, "
        "which `timeouts.request_s` has to cover",
    )
    max: int = Field(1, ge=1, le=1024, description="under load; at least min")
    target: float = Field(
        1.5, gt=0, description="batches in work per replica at which another one is started"
    )
    upscale_delay_s: float = Field(
        2.0, ge=0, description="load must last this long before replicas are added"
    )
    downscale_delay_s: float = Field(
        60.0, ge=0, description="quiet must last this long before replicas are removed"
    )

    max_surge_percent: int = Field(
        100,
        ge=0,
        le=100,
        description="of the replicas, how many new ones may run beside the old ones while a change "
        "replaces them; 0 stops old ones first, for want of room such as on a GPU",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError(f"max ({self.max}) must not be below min ({self.min}).")
        return self


class TimeoutsConfig(Schema):
    """How long things may take."""

    request_s: float = Field(30.0, gt=0, le=3600, description="caps what clients ask for")
    load_s: float = Field(300.0, gt=0, description="download, load and warm-up of a replica")
    drain_s: float = Field(30.0, gt=0, description="a stopping replica may finish its batches")


class VersionConfig(Schema):
    """One version of a model: artifact, predictor, resources."""

    platform: str = Field(min_length=1, description="shown to clients, such as pytorch or onnx")
    predictor: PredictorConfig
    artifact: ArtifactConfig | None = None
    resources: ResourcesConfig = ResourcesConfig()
    replicas: ReplicasConfig = ReplicasConfig()
    batching: BatchingPolicy = BatchingPolicy()
    timeouts: TimeoutsConfig = TimeoutsConfig()
    warm_up: dict[Name, Any] = Field(
        default_factory=dict, description="input name -> nested example data of at least one row"
    )
    idempotent: bool = Field(True, description="a batch may be computed again if its replica dies")
    metadata: dict[str, str] = Field(default_factory=dict, description="shown to clients")


class ModelConfig(Schema):
    """One model as clients see it, and everything needed to run it."""

    description: str = Field("", description="shown to clients")
    inputs: tuple[TensorSpec, ...] = Field(min_length=1)
    outputs: tuple[TensorSpec, ...] = Field(min_length=1)
    versions: dict[Name, VersionConfig] = Field(min_length=1)
    release: Release

    @model_validator(mode="after")
    def _distinct_tensors(self) -> Self:
        problems: list[InitErrorDetails] = []
        for kind, specs in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = [spec.name for spec in specs]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                text = f"each name may stand once; repeated: {', '.join(twice)}."
                error = PydanticCustomError("inconsistent", "{text}", {"text": text})
                problems.append(InitErrorDetails(type=error, loc=(kind,), input=names))
        if problems:
            raise ValidationError.from_exception_data("ModelConfig", problems)
        return self
