"""What the OpenAPI document says about bodies of `/v1`.

Unknown members of requests are ignored: clients of OpenAI send more than we read.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field


class EmbeddingsRequest(BaseModel):
    """Texts to embed."""

    model: str
    input: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    )
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="base64: little-endian FP32"
    )
    dimensions: int | None = Field(None, description="only the model's own number is allowed")


class Embedding(BaseModel):
    """The embedding of one text."""

    object: Literal["embedding"]
    index: int
    embedding: list[float | None] | str


class Usage(BaseModel):
    """Tokens that were read; 0 for a model that does not count them."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """The embeddings, in the order of the texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class ModelCard(BaseModel):
    """One model that has embeddings to give."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    """All models of this family."""

    object: Literal["list"]
    data: list[ModelCard]


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: str | None
    code: str


class OpenAIError(BaseModel):
    """An error in the shape of OpenAI."""

    error: ErrorDetail
