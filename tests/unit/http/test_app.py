"""The whole application without a listener: routes, shapes of errors, ids, telemetry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import numpy as np
import pytest

from serve_app.config.ingress import RequestLimits
from serve_app.config.listener import HttpConfig
from serve_app.dataplane import DataPlane
from serve_app.domain.inference import VersionKey
from serve_app.domain.routing import BatchingPolicy
from serve_app.domain.tensor import Array, TensorSpec
from serve_app.http.app import create_app
from serve_app.http.asgi import AsgiApp
from serve_app.testing import FakeGateway, RecordingTelemetry, model_route, route_table

INFER = "/v2/models/echo/infer"
LIMITS = RequestLimits(max_tensors=3, max_rows=8)


class Bench:
    """An application around fakes."""

    def __init__(self, **http: Any) -> None:
        self.gateway = FakeGateway()
        self.dataplane = DataPlane(self.gateway, LIMITS)
        self.telemetry = RecordingTelemetry()
        self.app: AsgiApp = create_app(self.dataplane, HttpConfig(**http), LIMITS, self.telemetry)
        self.dataplane.update(
            route_table(
                model_route("echo", weights={"1": 100}, replicas={"2": 1, "3": 0}),
                model_route("cold", replicas={"1": 0}),
                model_route("tiny", batching=BatchingPolicy(max_queue_rows=1)),
            )
        )
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app),
            base_url="http://test",
        )


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench(max_body_bytes=4096)
    async with made.client:
        yield made


def body(rows: int = 1, **more: Any) -> dict[str, Any]:
    data = [float(n) for n in range(rows * 4)]
    return {
        "inputs": [{"name": "x", "shape": [rows, 4], "datatype": "FP32", "data": data}],
        **more,
    }


def assert_problem(response: httpx.Response, status: int, code: str) -> Any:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["code"] == code
    assert problem["status"] == status
    assert problem["error"] == problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]
    return problem


# Inference


@pytest.mark.parametrize(
    ("path", "version"), [(INFER, "1"), ("/v2/models/echo/versions/2/infer", "2")]
)
async def test_infer(bench: Bench, path: str, version: str) -> None:
    response = await bench.client.post(path, json=body(id="q"), headers={"x-request-id": "r-1"})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"] == "r-1"
    assert response.headers["x-model-version"] == version
    assert response.json() == {
        "model_name": "echo",
        "model_version": version,
        "id": "q",
        "outputs": [
            {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0.0, 1.0, 2.0, 3.0]}
        ],
    }
    [(trace, status, code)] = bench.telemetry.finished
    assert (status, code) == (200, "ok")
    assert (trace.protocol, trace.request_id) == ("http", "r-1")
    assert (trace.model, trace.version, trace.rows) == ("echo", version, 1)


async def test_a_path_with_an_encoded_letter_gives_the_same_answer(bench: Bench) -> None:
    response = await bench.client.post("/v2/models/%65cho/infer", json=body())
    assert response.status_code == 200
    assert response.json()["outputs"][0]["data"] == [0.0, 1.0, 2.0, 3.0]
    assert response.headers["x-model-version"] == "1"
    assert len(response.headers.get_list("x-request-id")) == 1
    [(trace, status, code)] = bench.telemetry.finished
    assert (trace.model, status, code) == ("echo", 200, "ok")


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/echo%2Fversions%2F2/infer",
        "/v2/models/echo%2finfer",
        "/v2/models/../models/echo/infer/",
        "//v2/models/echo/infer",
        "/v2/models/echo/infer/",
        "/v2/models//infer",
        "/v2/models/echo%00/infer",
        "/v2/models/%2e%2e/infer",
        "/v2/models/echo/versions//infer",
        "/V2/models/echo/infer",
    ],
)
async def test_no_other_spelling_of_a_path_reaches_a_model(bench: Bench, path: str) -> None:
    response = await bench.client.post(f"http://test{path}", json=body())
    assert response.status_code == 404
    assert not bench.gateway.batches


async def test_requested_outputs_and_binary(bench: Bench) -> None:
    response = await bench.client.post(
        INFER, json=body(outputs=[{"name": "x", "parameters": {"binary_data": True}}])
    )
    length = int(response.headers["inference-header-content-length"])
    assert response.headers["content-type"] == "application/octet-stream"
    assert np.frombuffer(response.content[length:], "<f4").tolist() == [0.0, 1.0, 2.0, 3.0]


async def test_a_raw_request(bench: Bench) -> None:
    data = np.arange(8, dtype="<f4").tobytes()
    response = await bench.client.post(
        INFER, content=data, headers={"Inference-Header-Content-Length": "0"}
    )
    length = int(response.headers["inference-header-content-length"])
    assert response.content[length:] == data
    assert response.headers["x-model-version"] == "1"


@pytest.mark.parametrize(
    ("path", "document", "status", "code", "field"),
    [
        (INFER, {}, 400, "invalid_input", "inputs"),
        (INFER, body(9), 413, "payload_too_large", "inputs[0].shape"),
        (INFER, body(outputs=[{"name": "no"}]), 400, "invalid_input", "outputs[0].name"),
        ("/v2/models/no/infer", body(), 404, "model_not_found", None),
        ("/v2/models/echo/versions/9/infer", body(), 404, "version_not_found", None),
        ("/v2/models/echo/versions/3/infer", body(), 503, "not_ready", None),
        ("/v2/models/cold/infer", body(), 503, "not_ready", None),
    ],
)
async def test_infer_refuses(
    bench: Bench, path: str, document: Any, status: int, code: str, field: str | None
) -> None:
    response = await bench.client.post(path, json=document)
    problem = assert_problem(response, status, code)
    assert problem.get("field") == field
    assert ("retry-after" in response.headers) is (status == 503)
    assert bench.telemetry.finished[-1][1:] == (status, code)


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "br"])
async def test_compressed_bodies_are_not_read(bench: Bench, encoding: str) -> None:
    response = await bench.client.post(INFER, content=b"x", headers={"content-encoding": encoding})
    assert_problem(response, 415, "unsupported_media_type")


async def test_a_body_over_the_cap(bench: Bench) -> None:
    for path in (INFER, "/v2/repository/index"):
        response = await bench.client.post(path, content=b"x" * 4097)
        assert_problem(response, 413, "payload_too_large")
    response = await bench.client.post("/v1/embeddings", content=b"x" * 4097)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "payload_too_large"


async def test_a_malformed_request_is_counted_for_its_model(bench: Bench) -> None:
    for content in (b"{", b"[]", b'{"inputs":[]}'):
        response = await bench.client.post(INFER, content=content)
        assert response.status_code == 400
        assert bench.telemetry.finished[-1][0].model == "echo"


async def test_the_smallest_deadline_wins(bench: Bench) -> None:
    bench.gateway.delay_s = 0.5
    for headers, parameters in (
        ({"x-request-timeout-ms": "10"}, {}),
        ({"x-request-timeout-ms": "10"}, {"timeout": 60_000_000}),
        ({"x-request-timeout-ms": "60000"}, {"timeout": 10_000}),
        ({}, {"timeout": 10_000}),
    ):
        response = await bench.client.post(INFER, json=body(parameters=parameters), headers=headers)
        assert_problem(response, 504, "deadline_exceeded")
        assert response.headers["x-model-version"] == "1"
        assert response.headers["x-should-retry"] == "false"


async def test_a_wrong_deadline(bench: Bench) -> None:
    response = await bench.client.post(INFER, json=body(), headers={"x-request-timeout-ms": "soon"})
    problem = assert_problem(response, 400, "malformed_request")
    assert problem["field"] == "x-request-timeout-ms"


async def test_a_full_queue_says_when_to_come_back(bench: Bench) -> None:
    bench.gateway.delay_s = 0.2
    responses = await asyncio.gather(
        *(bench.client.post("/v2/models/tiny/infer", json=body()) for _ in range(12))
    )
    refused = [response for response in responses if response.status_code != 200]
    assert refused
    for response in refused:
        assert_problem(response, 503, "overloaded")
        assert int(response.headers["retry-after"]) >= 1
        assert "x-should-retry" not in response.headers


async def test_a_draining_server(bench: Bench) -> None:
    bench.dataplane.draining = True
    assert_problem(await bench.client.post(INFER, json=body()), 503, "draining")
    response = await bench.client.get("/-/healthz")
    assert (response.status_code, response.text) == (503, "not ready")


async def test_a_request_id_that_is_not_safe_is_replaced(bench: Bench) -> None:
    for path in (INFER, "/v2"):
        response = await bench.client.get(path, headers={"x-request-id": "a b"})
        assert response.headers["x-request-id"] != "a b"
        assert len(response.headers["x-request-id"]) == 32


async def test_a_fault_in_a_model_tells_nothing(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(_key: VersionKey, _inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        raise RuntimeError("secret /path")

    bench.gateway.compute = explode
    response = await bench.client.post(INFER, json=body())
    problem = assert_problem(response, 500, "internal")
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert problem["request_id"]


async def test_a_fault_of_ours_is_logged_under_the_request_id(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def explode(*_: Any) -> None:
        raise RuntimeError("secret /path")

    monkeypatch.setattr(bench.dataplane, "infer", explode)
    response = await bench.client.post(INFER, json=body(), headers={"x-request-id": "r-9"})
    assert_problem(response, 500, "internal")
    assert "secret" not in response.text
    [record] = [each for each in caplog.records if each.name == "serve_app.http.errors"]
    assert vars(record)["request_id"] == "r-9"
    assert bench.telemetry.finished[-1][1:] == (500, "internal")


async def test_a_fault_in_another_route_tells_nothing_either(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.dataplane, "table", None)
    assert_problem(await bench.client.get("/v2/models/echo"), 500, "internal")
    response = await bench.client.get("/v1/models")
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"


async def test_a_client_that_leaves_is_counted_and_its_work_dropped(bench: Bench) -> None:
    bench.gateway.delay_s = 5.0
    task = asyncio.create_task(bench.client.post(INFER, json=body()))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.telemetry.finished[-1][1:] == (499, "client_gone")
    assert bench.dataplane.in_flight == 0


async def test_embeddings_that_are_refused_are_counted_for_their_model(bench: Bench) -> None:
    for model, traced in (("echo", "echo"), ("nope", "")):
        document = {"model": model, "input": "a"}
        response = await bench.client.post("/v1/embeddings", json=document)
        assert response.status_code in (400, 404)
        assert bench.telemetry.finished[-1][0].model == traced


# The other routes of /v2


async def test_server_metadata(bench: Bench) -> None:
    response = await bench.client.get("/v2")
    assert response.json()["name"] == "serve-app"
    assert response.json()["extensions"] == ["binary_tensor_data", "model_repository"]
    [(trace, status, code)] = bench.telemetry.finished
    assert (trace.protocol, trace.model, status, code) == ("http", "", 200, "ok")


async def test_health(bench: Bench) -> None:
    client = bench.client
    assert (await client.get("/v2/health/live")).json() == {"live": True}
    assert (await client.get("/v2/health/ready")).json() == {"ready": True}
    response = await client.get("/-/healthz")
    assert (response.status_code, response.text) == (200, "success")
    assert (await client.get("/v2/models/echo/ready")).json() == {"name": "echo", "ready": True}


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/v2/models/cold/ready", {"name": "cold", "ready": False}),
        ("/v2/models/echo/versions/3/ready", {"name": "echo", "ready": False}),
    ],
)
async def test_not_ready_is_503(bench: Bench, path: str, content: Any) -> None:
    response = await bench.client.get(path)
    assert response.status_code == 503
    assert response.json() == content
    assert "retry-after" in response.headers
    assert bench.telemetry.finished[-1][1:] == (503, "not_ready")


async def test_a_server_without_a_table_is_live_and_not_ready() -> None:
    bench = Bench()
    bench.dataplane = DataPlane(FakeGateway(), LIMITS)
    app = create_app(bench.dataplane, HttpConfig(), LIMITS, bench.telemetry)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/v2/health/live")).status_code == 200
        response = await client.get("/v2/health/ready")
        assert (response.status_code, response.json()) == (503, {"ready": False})
        assert (await client.get("/-/healthz")).status_code == 503
        assert_problem(await client.post(INFER, json=body()), 404, "model_not_found")


async def test_model_metadata(bench: Bench) -> None:
    tensors = [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    expected = {
        "name": "echo",
        "versions": ["1", "2", "3"],
        "platform": "test",
        "inputs": tensors,
        "outputs": tensors,
        "properties": {"description": "a model for tests"},
    }
    assert (await bench.client.get("/v2/models/echo")).json() == expected
    one = (await bench.client.get("/v2/models/echo/versions/2")).json()
    assert one == expected | {"versions": ["2"]}


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v2/models/no", "model_not_found"),
        ("/v2/models/no/ready", "model_not_found"),
        ("/v2/models/echo/versions/9", "version_not_found"),
        ("/v2/models/echo/versions/9/ready", "version_not_found"),
        ("/v2/nothing", "route_not_found"),
        ("/", "route_not_found"),
        ("/nothing", "route_not_found"),
        ("/v2/", "route_not_found"),
    ],
)
async def test_what_is_not_there(bench: Bench, path: str, code: str) -> None:
    assert_problem(await bench.client.get(path), 404, code)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("GET", INFER, "POST"), ("DELETE", INFER, "POST"), ("POST", "/v2", "GET")],
)
async def test_wrong_methods(bench: Bench, method: str, path: str, allow: str) -> None:
    response = await bench.client.request(method, path)
    assert_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == allow


async def test_wrong_method_and_path_of_the_openai_family(bench: Bench) -> None:
    for method, path, status in (("GET", "/v1/embeddings", 405), ("GET", "/v1/no", 404)):
        response = await bench.client.request(method, path)
        assert response.status_code == status
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
        assert bench.telemetry.finished[-1][0].protocol == "openai"


async def test_repository_index(bench: Bench) -> None:
    for content in (b"", b"{}", b'{"ready":false}'):
        index = (await bench.client.post("/v2/repository/index", content=content)).json()
        assert {(each["name"], each["version"], each["state"]) for each in index} == {
            ("echo", "1", "READY"),
            ("echo", "2", "READY"),
            ("echo", "3", "UNAVAILABLE"),
            ("cold", "1", "UNAVAILABLE"),
            ("tiny", "1", "READY"),
        }
    index = (await bench.client.post("/v2/repository/index", json={"ready": True})).json()
    assert len(index) == 3
    assert {each["state"] for each in index} == {"READY"}


@pytest.mark.parametrize("content", [b"[]", b"x", b'{"ready":1}', b'{"ready":true,"ready":false}'])
async def test_repository_index_refuses(bench: Bench, content: bytes) -> None:
    response = await bench.client.post("/v2/repository/index", content=content)
    assert response.status_code == 400


@pytest.mark.parametrize("verb", ["load", "unload"])
async def test_models_are_loaded_by_configuration_only(bench: Bench, verb: str) -> None:
    response = await bench.client.post(f"/v2/repository/models/echo/{verb}", json={})
    problem = assert_problem(response, 400, "bad_request")
    assert "configuration" in problem["detail"]


async def test_the_default_version_is_the_ready_one_with_most_traffic() -> None:
    bench = Bench()
    spec = (TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),)
    route = model_route("m", inputs=spec, weights={"1": 60, "2": 40}, replicas={"1": 0, "2": 1})
    platforms = {
        version: each.__class__(
            each.key, each.application, f"platform-{version}", each.batching, 5.0, each.replicas
        )
        for version, each in route.versions.items()
    }
    changed = route.__class__("m", "", route.inputs, route.outputs, platforms, route.release)
    bench.dataplane.update(route_table(changed, revision=2))
    async with bench.client as client:
        assert (await client.get("/v2/models/m")).json()["platform"] == "platform-2"
        assert (await client.get("/v2/models/m/versions/1")).json()["platform"] == "platform-1"


async def test_documentation_can_be_switched_off() -> None:
    for docs, status in ((True, 200), (False, 404)):
        async with Bench(docs=docs).client as client:
            assert (await client.get("/docs")).status_code == status
            assert (await client.get("/openapi.json")).status_code == status
            assert (await client.get("/redoc")).status_code == 404
