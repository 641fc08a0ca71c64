"""The one OpenAPI document: what FastAPI cannot know about our routes, and corrections to it."""

from __future__ import annotations

import json
import re
from typing import Any

from fastapi import FastAPI, Response
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serve_app.errors import (
    BodyTimeout,
    Conflict,
    DeadlineExceeded,
    PayloadTooLarge,
    RequestError,
    RevisionConflict,
    RouteNotFound,
    ServeAppError,
    Unavailable,
    UnsupportedMediaType,
)
from serve_app.http.admin.schema import BODIES
from serve_app.http.v1.schema import EmbeddingsRequest, OpenAIError
from serve_app.http.v2.schema import IndexRequest, InferRequest, InferResponse, Problem

TAGS = [
    {"name": "inference", "description": "Open Inference Protocol v2: compute outputs"},
    {"name": "models", "description": "Open Inference Protocol v2: what is served"},
    {"name": "server", "description": "Open Inference Protocol v2: this server"},
    {"name": "health", "description": "Liveness and readiness"},
    {"name": "repository", "description": "Model repository extension"},
    {"name": "openai", "description": "OpenAI-compatible"},
    {"name": "admin", "description": "Releases, rollouts, experiments; whole deployments"},
]

_REF = "#/components/schemas/{model}"
_EXTRA_SCHEMAS = (
    InferRequest,
    InferResponse,
    IndexRequest,
    Problem,
    EmbeddingsRequest,
    OpenAIError,
    *BODIES,
)
_REFERENCE = re.compile(r'"#/components/schemas/(\w+)"')
_ERRORS: dict[int, type[ServeAppError]] = {
    error.status: error
    for error in (
        RequestError,
        RouteNotFound,
        BodyTimeout,
        Conflict,
        RevisionConflict,
        PayloadTooLarge,
        UnsupportedMediaType,
        ServeAppError,
        Unavailable,
        DeadlineExceeded,
    )
}

_STRING = {"type": "string"}
_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_MODEL_VERSION = {
    "x-model-version": {"description": "the version that answered", "schema": _STRING},
    "x-model-fallback-from": {
        "description": "the version that was chosen, if another one answered",
        "schema": _STRING,
    },
}
TIMEOUT_HEADER = {
    "name": "x-request-timeout-ms",
    "in": "header",
    "required": False,
    "description": "Deadline in milliseconds; it can shorten the version's own, never lengthen it.",
    "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
}
_LENGTH_HEADER = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "required": False,
    "description": (
        "Binary tensor extension: bytes of the JSON part. 0: the body is nothing but the bytes of "
        "the model's only input."
    ),
    "schema": {"type": "integer", "minimum": 0},
}

_DIGIT = [
    *(0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15, 10, 15, 5, 0, 0, 3, 15, 2, 0, 11, 8, 0),
    *(0, 4, 12, 0, 0, 8, 8, 0, 0, 5, 8, 0, 0, 9, 8, 0, 0, 4, 11, 0, 1, 12, 7, 0),
    *(0, 2, 14, 5, 10, 12, 0, 0, 0, 0, 6, 13, 10, 0, 0, 0),
]
INFER_EXAMPLES = {
    "digits": {
        "summary": "model `digits`: a handwritten zero, grey levels from 0 to 16",
        "value": {
            "inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": _DIGIT}],
        },
    },
    "minilm": {
        "summary": "model `minilm`: embeddings of two sentences",
        "value": {
            "inputs": [
                {
                    "name": "text",
                    "shape": [2],
                    "datatype": "BYTES",
                    "data": ["A cat sits on the mat.", "Interest rates rise again."],
                }
            ],
        },
    },
}
EMBEDDINGS_EXAMPLES = {
    "minilm": {
        "summary": "model `minilm`",
        "value": {"model": "minilm", "input": ["A cat sits on the mat."]},
    },
}


class DocumentedApp(FastAPI):
    """FastAPI, with a document that says what the server really does."""

    def openapi(self) -> dict[str, Any]:
        """The document; made once."""
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            # The framework documents its own validation answer, which no route of ours gives.
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            named = set(_REFERENCE.findall(json.dumps(document["paths"])))
            _, extra = models_json_schema(
                [(each, "validation") for each in _EXTRA_SCHEMAS if each.__name__ in named],
                ref_template=_REF,
            )
            for name, schema in extra["$defs"].items():
                schemas.setdefault(name, schema)
            for operations in document["paths"].values():
                for operation in operations.values():
                    _complete(operation["responses"])
        return self.openapi_schema or {}


def _complete(responses: dict[str, Any]) -> None:
    responses.pop("422", None)
    for response in responses.values():
        response.setdefault("headers", {})["x-request-id"] = {
            "description": "the request's id, given or made",
            "required": True,
            "schema": _STRING,
        }


def problems(*statuses: int, openai: bool = False) -> dict[int | str, dict[str, Any]]:
    """The documentation of error answers."""
    schema = OpenAIError if openai else Problem
    media_type = "application/json" if openai else "application/problem+json"
    documented: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        documented[status] = {
            "description": _ERRORS[status].title,
            "content": {media_type: {"schema": _ref(schema)}},
        }
    if 503 in documented:
        documented[503]["headers"] = {
            "retry-after": {
                "description": "seconds to wait",
                "required": True,
                "schema": {"type": "integer", "minimum": 1},
            }
        }
    return documented


def json_body(
    schema: type[BaseModel], examples: dict[str, Any] | None = None, *, required: bool = True
) -> dict[str, Any]:
    """The documentation of a JSON body that the endpoint reads itself."""
    content: dict[str, Any] = {"schema": _ref(schema)}
    if examples:
        content["examples"] = examples
    return {"requestBody": {"required": required, "content": {"application/json": content}}}


def infer_operation() -> dict[str, Any]:
    """The documentation of an infer route, as arguments of FastAPI's decorators."""
    body = json_body(InferRequest, INFER_EXAMPLES)
    body["requestBody"]["content"].update(_BINARY)
    answer = {
        "description": "Outputs: JSON, or JSON followed by binary data if that was asked for",
        "headers": {
            **_MODEL_VERSION,
            "Inference-Header-Content-Length": {
                "description": "bytes of the JSON part, in a binary answer",
                "schema": {"type": "integer"},
            },
        },
        "content": {"application/json": {"schema": _ref(InferResponse)}, **_BINARY},
    }
    return {
        "response_class": Response,
        "responses": {200: answer, **problems(400, 404, 408, 413, 415, 500, 503, 504)},
        "openapi_extra": {**body, "parameters": [_LENGTH_HEADER, TIMEOUT_HEADER]},
    }


def _ref(schema: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=schema.__name__)}
