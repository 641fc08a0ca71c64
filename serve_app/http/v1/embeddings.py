"""Embeddings: between OpenAI's wire format and an inference of one BYTES input."""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

import numpy as np

from serve_app.domain.inference import InferenceResult
from serve_app.domain.routing import ModelRoute
from serve_app.domain.tensor import BYTES
from serve_app.errors import InvalidInput, MalformedRequest

EMBEDDING = "embedding"
TOKENS = "tokens"


class EmbeddingModel(NamedTuple):
    """How a model takes texts and gives embeddings."""

    input: str
    dimensions: int
    outputs: tuple[str, ...]


class EmbeddingsCall(NamedTuple):
    """What stands in the body of an embeddings request."""

    model: str
    texts: list[bytes]
    base64: bool
    dimensions: int | None


def embedding_model(model: ModelRoute) -> EmbeddingModel | None:
    """How to use a model for embeddings; None if its signature is another one.

    It takes one BYTES [-1] input and gives an FP32 [-1, d] output named `embedding`. An INT32 [-1]
    output named `tokens`, if there is one, is what usage is counted from.
    """
    outputs = {spec.name: (spec.datatype, spec.shape) for spec in model.outputs}
    datatype, shape = outputs.get(EMBEDDING, ("", ()))
    inputs = [(spec.datatype, spec.shape) for spec in model.inputs]
    if inputs != [(BYTES, (-1,))] or datatype != "FP32" or len(shape) != 2 or shape[0] != -1:
        return None
    counted = outputs.get(TOKENS) == ("INT32", (-1,))
    return EmbeddingModel(
        model.inputs[0].name, shape[1], (EMBEDDING, TOKENS) if counted else (EMBEDDING,)
    )


def decode_embeddings(document: Any) -> EmbeddingsCall:
    """Reads an embeddings request; unknown members are ignored.

    Raises:
        MalformedRequest: it is no object.
        InvalidInput: a member has a value that is not allowed.
    """
    if type(document) is not dict:
        raise MalformedRequest("the request must be a JSON object")
    model = document.get("model")
    if type(model) is not str:
        raise InvalidInput("model must be a string", "model")
    form = document.get("encoding_format")
    if form not in (None, "float", "base64"):
        raise InvalidInput("encoding_format must be float or base64", "encoding_format")
    dimensions = document.get("dimensions")
    if dimensions is not None and type(dimensions) is not int:
        raise InvalidInput("dimensions must be a whole number", "dimensions")
    return EmbeddingsCall(model, _texts(document.get("input")), form == "base64", dimensions)


def _texts(value: Any) -> list[bytes]:
    texts = [value] if type(value) is str else value
    if type(texts) is not list or not texts:
        raise InvalidInput("input must be a string or an array of strings, not empty", "input")
    kinds = set(map(type, texts))
    if kinds <= {int, list}:
        raise InvalidInput("arrays of tokens are not supported: send the text", "input")
    if kinds != {str}:
        raise InvalidInput("input must be a string or an array of strings", "input")
    if "" in texts:
        raise InvalidInput("input must not hold an empty string", "input")
    return [text.encode() for text in texts]


def encode_embeddings(result: InferenceResult, *, as_base64: bool) -> dict[str, Any]:
    """The answer, ready for JSON."""
    rows = np.ascontiguousarray(result.outputs[EMBEDDING], dtype="<f4")
    tokens = int(result.outputs[TOKENS].sum()) if TOKENS in result.outputs else 0
    return {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(row.data).decode() if as_base64 else row,
            }
            for index, row in enumerate(rows)
        ],
        "model": result.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
