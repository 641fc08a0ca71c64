"""The OpenAPI document: whole, consistent, and nothing in it that is not so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
from fastapi import FastAPI

from serve_app.config.ingress import RequestLimits
from serve_app.config.listener import HttpConfig
from serve_app.dataplane import DataPlane
from serve_app.domain.release import Release
from serve_app.domain.tensor import TensorSpec
from serve_app.http.openapi import EMBEDDINGS_EXAMPLES, INFER_EXAMPLES
from serve_app.http.rest import create_rest
from serve_app.http.v1.embeddings import decode_embeddings
from serve_app.http.v2.infer import InferEndpoint
from serve_app.http.v2.infer_request import decode_infer
from serve_app.telemetry.sink import NullTelemetry
from serve_app.testing import FakeControl, FakeDeployer, FakeGateway, model_route
from tests.unit.http.test_admin import ROLLOUT

LIMITS = RequestLimits()
RELEASE = Release.model_validate({"candidates": [{"version": "2", "weight": 100}]})


def rest(*, admin: bool = False) -> FastAPI:
    dataplane, http = DataPlane(FakeGateway(), LIMITS), HttpConfig()
    telemetry = NullTelemetry()
    endpoint = InferEndpoint(dataplane, http, LIMITS, telemetry)
    if not admin:
        return create_rest(dataplane, http, telemetry, endpoint)
    control = FakeControl(digits=RELEASE)
    control.rollout = ROLLOUT
    return create_rest(dataplane, http, telemetry, endpoint, control, FakeDeployer())


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return rest().openapi()


@pytest.fixture(scope="module", params=[False, True], ids=["clients", "admin"])
def any_document(request: pytest.FixtureRequest) -> dict[str, Any]:
    return rest(admin=request.param).openapi()


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


def test_no_reference_leads_nowhere(any_document: dict[str, Any]) -> None:
    schemas = any_document["components"]["schemas"]

    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if "$ref" in node:
                yield node["$ref"]
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    used = set(references(any_document))
    assert used
    for reference in used:
        assert reference.removeprefix("#/components/schemas/") in schemas


def test_the_framework_s_own_validation_answer_is_not_there(any_document: dict[str, Any]) -> None:
    assert "ValidationError" not in orjson.dumps(any_document).decode()
    assert all("422" not in operation["responses"] for _, _, operation in operations(any_document))


def test_every_answer_has_its_request_id(any_document: dict[str, Any]) -> None:
    for _, _, operation in operations(any_document):
        for response in operation["responses"].values():
            assert response["headers"]["x-request-id"]["required"] is True


def test_errors_have_the_shape_of_their_family(any_document: dict[str, Any]) -> None:
    for _, path, operation in operations(any_document):
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


async def test_examples_of_the_admin_api_work_as_pasted() -> None:
    app = rest(admin=True)
    taken = set()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for method, path, operation in operations(app.openapi()):
            if not path.startswith("/admin") or "requestBody" not in operation:
                continue
            content = operation["requestBody"]["content"]["application/json"]
            for name, example in content.get("examples", {}).items():
                url = path.format(model="digits", verb="pause")
                if path.endswith("v1/rollback"):  # to somewhere
                    for wanted in ("a=1", "a=2"):
                        await client.post("/admin/v1/apply", json={"overrides": [wanted]})
                answer = await client.request(method, url, json=example["value"])
                assert answer.is_success, f"{path} {name}: {answer.text}"
                taken.add(path)
    changing = {path for method, path, _ in operations(app.openapi()) if method != "GET"}
    assert taken == {path for path in changing if path.startswith("/admin")}
