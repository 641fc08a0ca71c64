"""schemathesis: what our OpenAPI document says, held against the real listener."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS, load_all_checks

from serve_app.config.ingress import RequestLimits
from serve_app.config.listener import HttpConfig
from serve_app.dataplane import DataPlane
from serve_app.http.openapi import EMBEDDINGS_EXAMPLES, INFER_EXAMPLES
from serve_app.http.rest import create_rest
from serve_app.http.v2.infer import InferEndpoint
from serve_app.telemetry.sink import NullTelemetry
from serve_app.testing import FakeControl, FakeDeployer, FakeGateway
from tests.contract.live_http import LiveServer, live_server

load_all_checks()
CONFORMANCE = CHECKS.get_by_names(
    [
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "response_headers_conformance",
        "allow_header_conformance",
    ]
)
REFUSALS = {503, 504}
"""What a healthy server may answer beyond 500: not ready, and a deadline that the client chose."""


def document() -> dict[str, Any]:
    limits, http = RequestLimits(), HttpConfig()
    dataplane = DataPlane(FakeGateway(), limits)
    telemetry = NullTelemetry()
    endpoint = InferEndpoint(dataplane, http, limits, telemetry)
    ports = FakeControl(), FakeDeployer()
    return create_rest(dataplane, http, telemetry, endpoint, *ports).openapi()


SCHEMA = schemathesis.openapi.from_dict(document())


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server() as made:
        yield made


@SCHEMA.parametrize()
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_the_server_does_what_its_document_says(case: Any, server: LiveServer) -> None:
    parameters = case.path_parameters or {}
    if "model" in parameters and len(str(case.body)) % 4:  # mostly models that are there
        parameters["model"] = "digits"
        if "version" in parameters:
            parameters["version"] = "1"
    response = case.call(base_url=server.url)
    assert response.status_code < 500 or response.status_code in REFUSALS, response.text
    case.validate_response(response, checks=CONFORMANCE)


def test_the_document_is_what_the_server_gives(server: LiveServer) -> None:
    assert httpx.get(f"{server.url}/openapi.json").json() == document()
    page = httpx.get(f"{server.url}/docs")
    assert page.status_code == 200
    assert "/openapi.json" in page.text


@pytest.mark.parametrize("model", INFER_EXAMPLES)
def test_infer_examples_work_as_pasted(server: LiveServer, model: str) -> None:
    example: Any = INFER_EXAMPLES[model]
    url = f"{server.url}/v2/models/{model}/infer"
    response = httpx.post(url, json=example["value"])
    assert response.status_code == 200, response.text
    assert response.json()["model_name"] == model


def test_the_embeddings_example_works_as_pasted(server: LiveServer) -> None:
    example: Any = EMBEDDINGS_EXAMPLES["minilm"]
    response = httpx.post(f"{server.url}/v1/embeddings", json=example["value"])
    assert response.status_code == 200, response.text
