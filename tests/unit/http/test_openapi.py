"""The OpenAPI document: whole, consistent, and nothing in it that is not so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from serve_app.config.ingress import RequestLimits
from serve_app.config.listener import HttpConfig
from serve_app.dataplane import DataPlane
from serve_app.domain.tensor import TensorSpec
from serve_app.http.openapi import EMBEDDINGS_EXAMPLES, INFER_EXAMPLES
from serve_app.http.rest import create_rest
from serve_app.http.v1.embeddings import decode_embeddings
from serve_app.http.v2.infer import InferEndpoint
from serve_app.http.v2.infer_request import decode_infer
from serve_app.telemetry.sink import NullTelemetry
from serve_app.testing import FakeGateway, model_route

LIMITS = RequestLimits()


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    dataplane, http = DataPlane(FakeGateway(), LIMITS), HttpConfig()
    telemetry = NullTelemetry()
    endpoint = InferEndpoint(dataplane, http, LIMITS, telemetry)
    return create_rest(dataplane, http, telemetry, endpoint).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_every_route_is_documented(document: dict[str, Any]) -> None:
    model, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    assert {(method, path) for method, path, _ in operations(document)} == {
        ("GET", "/v2"),
        ("GET", "/v2/health/live"),
        ("GET", "/v2/health/ready"),
        ("GET", model),
        ("GET", f"{model}/ready"),
        ("POST", f"{model}/infer"),
        ("GET", version),
        ("GET", f"{version}/ready"),
        ("POST", f"{version}/infer"),
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/{model}/load"),
        ("POST", "/v2/repository/models/{model}/unload"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/{model}"),
        ("POST", "/v1/embeddings"),
        ("GET", "/-/healthz"),
    }


def test_no_reference_leads_nowhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if "$ref" in node:
                yield node["$ref"]
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    used = set(references(document))
    assert used
    for reference in used:
        assert reference.removeprefix("#/components/schemas/") in schemas


def test_the_framework_s_own_validation_answer_is_not_there(document: dict[str, Any]) -> None:
    assert "ValidationError" not in orjson.dumps(document).decode()
    assert all("422" not in operation["responses"] for _, _, operation in operations(document))


def test_every_answer_has_its_request_id(document: dict[str, Any]) -> None:
    for _, _, operation in operations(document):
        for response in operation["responses"].values():
            assert response["headers"]["x-request-id"]["required"] is True


def test_errors_have_the_shape_of_their_family(document: dict[str, Any]) -> None:
    for _, path, operation in operations(document):
        for status, response in operation["responses"].items():
            if status.startswith("4") and path.startswith("/v1"):
                [schema] = response["content"].values()
                assert schema["schema"]["$ref"].endswith("/OpenAIError")
            elif status.startswith("4"):
                assert list(response["content"]) == ["application/problem+json"]


@pytest.mark.parametrize("path", ["/v2/models/{model}/infer", "/v1/embeddings"])
def test_inference_documents_every_error(document: dict[str, Any], path: str) -> None:
    responses = document["paths"][path]["post"]["responses"]
    assert set(responses) == {"200", "400", "404", "408", "413", "415", "500", "503", "504"}
    assert responses["503"]["headers"]["retry-after"]["required"] is True


SIGNATURES = {
    "digits": TensorSpec(name="x", datatype="FP32", shape=(-1, 64)),
    "minilm": TensorSpec(name="text", datatype="BYTES", shape=(-1,)),
}


@pytest.mark.parametrize("name", INFER_EXAMPLES)
def test_examples_are_requests_that_the_default_models_take(name: str) -> None:
    example: Any = INFER_EXAMPLES[name]
    call = decode_infer(orjson.dumps(example["value"]), None, model_route(), LIMITS, 32)
    spec = SIGNATURES[name]
    [(tensor, array)] = call.inputs.items()
    assert tensor == spec.name
    assert array.dtype == spec.dtype
    assert array.shape[1:] == spec.shape[1:]


def test_the_embeddings_example_can_be_read() -> None:
    example: Any = EMBEDDINGS_EXAMPLES["minilm"]
    assert decode_embeddings(example["value"]).model == "minilm"
