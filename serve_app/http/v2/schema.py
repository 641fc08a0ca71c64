"""What the OpenAPI document says about bodies of `/v2`.

These describe the wire; the hot path reads and writes it without them. Unknown members of requests
are ignored, as the protocol's extensions want it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from serve_app.domain.tensor import DTYPES

Datatype = Annotated[str, Field(json_schema_extra={"enum": list(DTYPES)})]
Parameters = Annotated[
    dict[str, str | int | float | bool],
    Field(description="string, number or boolean values"),
]
Data = Annotated[
    list[Any], Field(description="the elements, row-major: flat, or nested as the shape")
]
Shape = list[Annotated[int, Field(ge=0)]]


class InputTensor(BaseModel):
    """One input."""

    name: str
    shape: Shape
    datatype: Datatype
    parameters: Parameters | None = Field(
        None, description="`binary_data_size`: bytes of this input after the JSON part"
    )
    data: Data | None = None


class RequestedOutput(BaseModel):
    """One output that the client wants."""

    name: str
    parameters: Parameters | None = Field(
        None, description="`binary_data`: true for binary, false for JSON"
    )


class InferRequest(BaseModel):
    """An infer request."""

    id: str | None = Field(None, description="echoed in the answer")
    parameters: Parameters | None = Field(
        None,
        description="`timeout`: microseconds, 0 for none; `binary_data_output`: all outputs binary",
    )
    inputs: list[InputTensor] = Field(min_length=1)
    outputs: list[RequestedOutput] | None = Field(None, description="absent: all outputs")


class OutputTensor(BaseModel):
    """One output."""

    name: str
    shape: Shape
    datatype: Datatype
    parameters: Parameters | None = Field(
        None, description="`binary_data_size`: bytes of this output after the JSON part"
    )
    data: Data | None = Field(None, description="flat, row-major; NaN and infinities are null")


class InferResponse(BaseModel):
    """The answer to an infer request."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class ServerMetadata(BaseModel):
    """What this server is."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(BaseModel):
    """Whether the process answers."""

    live: bool


class ServerReady(BaseModel):
    """Whether the server takes requests."""

    ready: bool


class TensorMetadata(BaseModel):
    """A declared input or output; -1 is any size."""

    name: str
    datatype: Datatype
    shape: list[int]


class ModelMetadata(BaseModel):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    properties: dict[str, str]


class ModelReady(BaseModel):
    """Whether a model, or one version of it, can answer."""

    name: str
    ready: bool


class IndexRequest(BaseModel):
    """Which models to list."""

    ready: bool = Field(False, description="only versions that are ready")


class IndexEntry(BaseModel):
    """One version of one model."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class Problem(BaseModel):
    """An error, after RFC 9457."""

    type: str = Field(description="stable name of the kind of error")
    title: str
    status: int
    detail: str
    error: str = Field(description="the same as `detail`, for clients of the protocol")
    code: str
    request_id: str
    retryable: bool = Field(description="whether the same request may succeed later")
    field: str | None = Field(None, description="which part of the request is at fault")
