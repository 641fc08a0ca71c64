"""Stock clients, unmodified, against a live cluster."""

from __future__ import annotations

import base64
import json
import struct
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from sklearn.datasets import load_digits

from tests.integration.cluster import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(280)]

SENTENCES = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
]
FIRST = [0.0332416, 0.0044060, -0.0062770, 0.0483787]


@pytest.fixture(scope="module")
def over_http(cluster: Cluster) -> Iterator[Any]:
    client = triton_http.InferenceServerClient(cluster.http, concurrency=4)
    yield client
    client.close()


@pytest.fixture(scope="module")
def over_grpc(cluster: Cluster) -> Iterator[Any]:
    client = triton_grpc.InferenceServerClient(cluster.grpc)
    yield client
    client.close()


@pytest.fixture(params=["http", "grpc"])
def triton(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """Module and client of one protocol; both have the same interface."""
    module = triton_http if request.param == "http" else triton_grpc
    return module, request.getfixturevalue(f"over_{request.param}")


def digits(count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    data = load_digits()
    return data.data[-count:].astype(np.float32), data.target[-count:]


def test_health(triton: tuple[Any, Any]) -> None:
    _, client = triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "3")


def test_metadata_over_http(over_http: Any) -> None:
    server = over_http.get_server_metadata()
    assert "binary_tensor_data" in server["extensions"]
    model = over_http.get_model_metadata("digits")
    assert model["versions"] == ["1", "2", "3"]
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}]
    assert model["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}]
    accuracy = over_http.get_model_metadata("digits", "2")["properties"]["accuracy"]
    assert 0.95 < float(accuracy) <= 1.0
    index = over_http.get_model_repository_index()
    assert {(m["name"], m["version"], m["state"]) for m in index} >= {
        ("digits", "2", "READY"),
        ("minilm", "1", "READY"),
    }


def test_metadata_over_grpc(over_grpc: Any) -> None:
    model = over_grpc.get_model_metadata("minilm", as_json=True)
    assert model["inputs"][0] == {"name": "text", "datatype": "BYTES", "shape": ["-1"]}
    index = over_grpc.get_model_repository_index(as_json=True)
    assert {"digits", "minilm"} <= {each["name"] for each in index["models"]}


@pytest.mark.parametrize("version", ["1", "2", "3"])
@pytest.mark.parametrize("binary", [True, False])
def test_digits_over_http(over_http: Any, version: str, binary: bool) -> None:
    x, labels = digits(200)
    tensor = triton_http.InferInput("x", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x, binary_data=binary)
    wanted = triton_http.InferRequestedOutput("logits", binary_data=binary)
    result = over_http.infer(
        "digits", [tensor], model_version=version, outputs=[wanted], request_id="my-id"
    )
    logits = result.as_numpy("logits")
    assert logits.shape == (200, 10)
    assert np.mean(logits.argmax(1) == labels) > 0.9
    answer = result.get_response()
    assert (answer["model_version"], answer["id"]) == (version, "my-id")


@pytest.mark.parametrize("version", ["", "1", "3"])
def test_digits_over_grpc(over_grpc: Any, version: str) -> None:
    x, labels = digits(200)
    tensor = triton_grpc.InferInput("x", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    result = over_grpc.infer("digits", [tensor], model_version=version, request_id="my-id")
    assert np.mean(result.as_numpy("logits").argmax(1) == labels) > 0.9
    answer = result.get_response()
    assert (answer.model_version, answer.id) == (version or "2", "my-id")


def test_minilm_golden_values(triton: tuple[Any, Any]) -> None:
    module, client = triton
    texts = np.array([text.encode() for text in SENTENCES], dtype=np.object_)
    tensor = module.InferInput("text", [3], "BYTES")
    tensor.set_data_from_numpy(texts)
    vectors = client.infer("minilm", [tensor]).as_numpy("embedding")
    assert vectors.shape == (3, 384)
    assert vectors[0, :4] == pytest.approx(FIRST, abs=1e-4)
    assert vectors[0] @ vectors[1] == pytest.approx(0.75534, abs=1e-4)
    assert vectors[0] @ vectors[2] == pytest.approx(-0.10496, abs=1e-4)


def test_errors_reach_a_stock_client_with_their_text(triton: tuple[Any, Any]) -> None:
    module, client = triton
    tensor = module.InferInput("x", [1, 63], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 63), np.float32))
    with pytest.raises(Exception, match=r"shape \[1, 63\] does not fit the declared \[-1, 64\]"):
        client.infer("digits", [tensor])
    with pytest.raises(Exception, match="'nothing' is not served here"):
        client.infer("nothing", [tensor])


@pytest.fixture(scope="module")
def openai_client(cluster: Cluster) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://{cluster.http}/v1", api_key="unused", max_retries=0)


def test_openai_embeddings(openai_client: openai.OpenAI) -> None:
    assert "minilm" in {model.id for model in openai_client.models.list()}
    answer = openai_client.embeddings.create(model="minilm", input=SENTENCES)
    assert [item.index for item in answer.data] == [0, 1, 2]
    assert answer.data[0].embedding[:4] == pytest.approx(FIRST, abs=1e-4)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 10
    one = openai_client.embeddings.create(
        model="minilm", input=SENTENCES[0], encoding_format="float"
    )
    assert one.data[0].embedding[:4] == pytest.approx(FIRST, abs=1e-4)


def test_openai_base64_is_little_endian_float32(cluster: Cluster) -> None:
    answer = httpx.post(
        f"http://{cluster.http}/v1/embeddings",
        json={"model": "minilm", "input": SENTENCES[0], "encoding_format": "base64"},
    ).json()
    raw = base64.b64decode(answer["data"][0]["embedding"])
    assert struct.unpack("<384f", raw)[:4] == pytest.approx(FIRST, abs=1e-4)


def test_openai_errors_are_the_sdk_s_own(openai_client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        openai_client.embeddings.create(model="nothing", input="x")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError):
        openai_client.embeddings.create(model="digits", input="x")


def test_documentation_is_served_and_names_the_hot_routes(cluster: Cluster) -> None:
    document = httpx.get(f"http://{cluster.http}/openapi.json").json()
    assert "/v2/models/{model}/infer" in {
        path.replace("model_name", "model") for path in document["paths"]
    }
    assert httpx.get(f"http://{cluster.http}/docs").status_code == 200


def test_metrics_cover_the_node_whichever_ingress_answers(cluster: Cluster) -> None:
    tensor = {"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [0.0] * 64}
    for _ in range(20):
        url = f"http://{cluster.http}/v2/models/digits/infer"
        assert httpx.post(url, json={"inputs": [tensor]}).status_code == 200
    time.sleep(1.5)  # each ingress shares its numbers once a second
    name = "serve_app_request_duration_seconds_count{"
    totals = []
    for _ in range(6):
        lines = [
            line for line in httpx.get(cluster.metrics).text.splitlines() if line.startswith(name)
        ]
        assert any('model_name="digits"' in line and 'code="ok"' in line for line in lines)
        totals.append(sum(float(line.rsplit(" ", 1)[1]) for line in lines))
    assert totals == sorted(totals)


def test_status_and_doctor(cluster: Cluster) -> None:
    report = cluster.status()
    assert report["ready"]
    rows = {(m["model"], v["version"]): v for m in report["models"] for v in m["versions"]}
    assert rows["digits", "2"]["traffic_percent"] == 100
    assert rows["echo", "1"]["replicas"] == 2
    table = cluster.run("status").stdout
    assert "digits" in table
    assert max(map(len, table.splitlines())) <= 100
    findings = json.loads(cluster.run("doctor", "--json").stdout)
    assert {"ok"} <= {each["level"] for each in findings} <= {"ok", "warn"}
