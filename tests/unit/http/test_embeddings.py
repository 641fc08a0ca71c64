"""The OpenAI-compatible routes without a listener."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import numpy as np
import pytest

from serve_app.config.ingress import RequestLimits
from serve_app.config.listener import HttpConfig
from serve_app.dataplane import DataPlane
from serve_app.domain.inference import VersionKey
from serve_app.domain.tensor import Array, TensorSpec
from serve_app.http.app import create_app
from serve_app.http.v1.embeddings import EmbeddingModel, embedding_model
from serve_app.testing import FakeGateway, RecordingTelemetry, model_route, route_table

TEXT = TensorSpec(name="text", datatype="BYTES", shape=(-1,))
EMBEDDING = TensorSpec(name="embedding", datatype="FP32", shape=(-1, 3))
TOKENS = TensorSpec(name="tokens", datatype="INT32", shape=(-1,))
LIMITS = RequestLimits(max_rows=4)


def embed(_key: VersionKey, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """Length, length + 0.5 and 1 of each text; a token for each byte."""
    lengths = np.array([len(text) for text in inputs["text"].tolist()])
    rows = np.stack([lengths, lengths + 0.5, np.ones(len(lengths))], axis=1)
    return {"embedding": rows.astype(np.float32), "tokens": lengths.astype(np.int32)}


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway(embed)


@pytest.fixture
def telemetry() -> RecordingTelemetry:
    return RecordingTelemetry()


@pytest.fixture
async def client(
    gateway: FakeGateway, telemetry: RecordingTelemetry
) -> AsyncIterator[httpx.AsyncClient]:
    dataplane = DataPlane(gateway, LIMITS)
    dataplane.update(
        route_table(
            model_route("minilm", inputs=(TEXT,), outputs=(EMBEDDING, TOKENS)),
            model_route("bare", inputs=(TEXT,), outputs=(EMBEDDING,)),
            model_route("digits"),
        )
    )
    app = create_app(dataplane, HttpConfig(), LIMITS, telemetry)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as made:
        yield made


async def test_one_text(client: httpx.AsyncClient, telemetry: RecordingTelemetry) -> None:
    response = await client.post("/v1/embeddings", json={"model": "minilm", "input": "abc"})
    assert response.status_code == 200
    assert response.json() == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [3.0, 3.5, 1.0]}],
        "model": "minilm",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
    assert response.headers["x-model-version"] == "1"
    [(trace, status, code)] = telemetry.finished
    assert (trace.protocol, trace.model, trace.rows) == ("openai", "minilm", 1)
    assert (status, code) == (200, "ok")


async def test_a_list_is_one_request_of_so_many_rows(
    client: httpx.AsyncClient, gateway: FakeGateway
) -> None:
    response = await client.post("/v1/embeddings", json={"model": "minilm", "input": ["a", "éé"]})
    assert [each["embedding"][0] for each in response.json()["data"]] == [1.0, 4.0]
    assert [each["index"] for each in response.json()["data"]] == [0, 1]
    assert response.json()["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    [(_, batch)] = gateway.batches
    assert batch.rows == (2,)


async def test_base64_is_little_endian_fp32(client: httpx.AsyncClient) -> None:
    response = await client.post(
        "/v1/embeddings",
        json={"model": "minilm", "input": ["ab"], "encoding_format": "base64"},
    )
    raw = base64.b64decode(response.json()["data"][0]["embedding"])
    assert np.frombuffer(raw, "<f4").tolist() == [2.0, 2.5, 1.0]


async def test_a_model_that_counts_no_tokens_reports_none(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/embeddings", json={"model": "bare", "input": "abc"})
    assert response.json()["usage"] == {"prompt_tokens": 0, "total_tokens": 0}


async def test_unknown_members_and_matching_dimensions_are_fine(client: httpx.AsyncClient) -> None:
    response = await client.post(
        "/v1/embeddings",
        json={"model": "minilm", "input": "a", "dimensions": 3, "user": "u", "extra": {"a": [1]}},
    )
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("change", "status", "param", "code"),
    [
        ({"input": None}, 400, "input", "invalid_input"),
        ({"input": ""}, 400, "input", "invalid_input"),
        ({"input": []}, 400, "input", "invalid_input"),
        ({"input": ["a", ""]}, 400, "input", "invalid_input"),
        ({"input": ["a", 1]}, 400, "input", "invalid_input"),
        ({"input": [1, 2]}, 400, "input", "invalid_input"),
        ({"input": [[1, 2]]}, 400, "input", "invalid_input"),
        ({"input": {"a": 1}}, 400, "input", "invalid_input"),
        ({"input": ["a"] * 5}, 413, "inputs[0].shape", "payload_too_large"),
        ({"model": None}, 400, "model", "invalid_input"),
        ({"model": ["minilm"]}, 400, "model", "invalid_input"),
        ({"model": "digits"}, 400, "model", "invalid_input"),
        ({"model": "no"}, 404, None, "model_not_found"),
        ({"dimensions": 4}, 400, "dimensions", "invalid_input"),
        ({"dimensions": "3"}, 400, "dimensions", "invalid_input"),
        ({"encoding_format": "hex"}, 400, "encoding_format", "invalid_input"),
        ({"encoding_format": ["float"]}, 400, "encoding_format", "invalid_input"),
    ],
)
async def test_bad_values_are_named(
    client: httpx.AsyncClient, change: dict[str, Any], status: int, param: str | None, code: str
) -> None:
    response = await client.post("/v1/embeddings", json={"model": "minilm", "input": "a"} | change)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (param, code)
    assert error["type"] == "invalid_request_error"


async def test_token_arrays_get_a_clear_text(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/embeddings", json={"model": "minilm", "input": [[1, 2]]})
    assert "send the text" in response.json()["error"]["message"]


@pytest.mark.parametrize("content", [b"", b"[]", b"x", b'{"model":"a","model":"b"}'])
async def test_broken_bodies(client: httpx.AsyncClient, content: bytes) -> None:
    response = await client.post("/v1/embeddings", content=content)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "malformed_request"


async def test_the_deadline_header_counts(client: httpx.AsyncClient, gateway: FakeGateway) -> None:
    gateway.delay_s = 0.5
    response = await client.post(
        "/v1/embeddings",
        json={"model": "minilm", "input": "a"},
        headers={"x-request-timeout-ms": "10"},
    )
    assert response.status_code == 504
    assert response.json()["error"]["type"] == "server_error"
    assert response.headers["x-model-version"] == "1"


async def test_a_client_that_leaves_is_counted(
    client: httpx.AsyncClient, gateway: FakeGateway, telemetry: RecordingTelemetry
) -> None:
    gateway.delay_s = 5.0
    task = asyncio.create_task(
        client.post("/v1/embeddings", json={"model": "minilm", "input": "a"})
    )
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert telemetry.finished[-1][1:] == (499, "client_gone")


async def test_models_with_embeddings_are_listed(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [card["id"] for card in listed["data"]] == ["minilm", "bare"]
    assert (await client.get("/v1/models/minilm")).json() == listed["data"][0]
    for name in ("digits", "no"):
        response = await client.get(f"/v1/models/{name}")
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "model_not_found"


def spec(name: str, datatype: str, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape)


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        ([TEXT], [EMBEDDING], EmbeddingModel("text", 3, ("embedding",))),
        ([TEXT], [TOKENS, EMBEDDING], EmbeddingModel("text", 3, ("embedding", "tokens"))),
        (
            [TEXT],
            [EMBEDDING, spec("tokens", "INT64", -1)],
            EmbeddingModel("text", 3, ("embedding",)),
        ),
        ([TEXT, spec("x", "FP32", -1)], [EMBEDDING], None),
        ([spec("text", "BYTES", -1, 1)], [EMBEDDING], None),
        ([spec("text", "FP32", -1)], [EMBEDDING], None),
        ([TEXT], [spec("vector", "FP32", -1, 3)], None),
        ([TEXT], [spec("embedding", "FP64", -1, 3)], None),
        ([TEXT], [spec("embedding", "FP32", -1)], None),
    ],
)
def test_the_signature_decides(
    inputs: list[TensorSpec], outputs: list[TensorSpec], expected: EmbeddingModel | None
) -> None:
    assert embedding_model(model_route(inputs=tuple(inputs), outputs=tuple(outputs))) == expected
