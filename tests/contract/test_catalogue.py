"""HTTP and gRPC describe the same server, the same models and the same repository."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc.aio
import httpx
import pytest
from google.protobuf.json_format import MessageToDict

from serve_app.config.ingress import RequestLimits
from serve_app.config.listener import HttpConfig
from serve_app.domain.routing import ModelRoute
from serve_app.domain.tensor import TensorSpec
from serve_app.grpc.generated import open_inference_pb2 as pb
from serve_app.http.app import create_app
from serve_app.testing import model_route
from tests.contract.grpc_server import GrpcServer, calling, serving


def with_platforms(model: ModelRoute) -> ModelRoute:
    """Each version of a platform of its own, to tell which one was described."""
    versions = {
        name: route._replace(platform=f"platform-{name}", metadata={"of": name})
        for name, route in model.versions.items()
    }
    return replace(model, versions=versions)


PAIR = (
    TensorSpec(name="a", datatype="FP32", shape=(-1, 4)),
    TensorSpec(name="b", datatype="BYTES", shape=(-1,)),
)
MODELS = [
    with_platforms(model_route("one")),
    with_platforms(model_route("pair", inputs=PAIR, outputs=PAIR[:1])),
    with_platforms(model_route("canary", weights={"1": 10, "2": 90})),
    with_platforms(model_route("half", weights={"1": 90, "2": 10}, replicas={"1": 0, "2": 1})),
    with_platforms(model_route("cold", replicas={"1": 0, "2": 1})),
    with_platforms(model_route("sleeping", replicas={"1": 0}, wakes=True)),
]
NAMES = [
    *[(model.name, "") for model in MODELS],
    *[(model.name, version) for model in MODELS for version in model.versions],
]


@asynccontextmanager
async def both() -> AsyncIterator[tuple[GrpcServer, httpx.AsyncClient]]:
    async with serving(*MODELS) as server:
        app: Any = create_app(server.dataplane, HttpConfig(), RequestLimits(), server.telemetry)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield server, client


async def ask(server: GrpcServer, method: str, request: Any) -> Any:
    response = getattr(pb, f"{method}Response")
    async with calling(server, method) as call:
        return response.FromString(await call(request.SerializeToString()))


def path(model: str, version: str) -> str:
    return f"/v2/models/{model}" + (f"/versions/{version}" if version else "")


async def test_the_server_and_its_extensions() -> None:
    async with both() as (server, client):
        described = await ask(server, "ServerMetadata", pb.ServerMetadataRequest())
        assert MessageToDict(described) == (await client.get("/v2")).json()
        assert "model_repository" in described.extensions


@pytest.mark.parametrize(("model", "version"), NAMES)
async def test_every_model_and_version(model: str, version: str) -> None:
    async with both() as (server, client):
        described = await ask(
            server, "ModelMetadata", pb.ModelMetadataRequest(name=model, version=version)
        )
        over_http = (await client.get(path(model, version))).json()
    properties = over_http.pop("properties")
    assert over_http["platform"] == f"platform-{properties['of']}"
    over_grpc = MessageToDict(described)
    for tensor in (*over_grpc["inputs"], *over_grpc["outputs"]):
        tensor["shape"] = [int(dim) for dim in tensor["shape"]]  # JSON has 64 bits as strings
    assert over_grpc == over_http


async def test_a_model_is_described_by_the_ready_version_with_most_traffic() -> None:
    async with both() as (server, _):
        found = {
            model: (await ask(server, "ModelMetadata", pb.ModelMetadataRequest(name=model)))
            for model in ("canary", "half", "cold")
        }
    assert {name: each.platform for name, each in found.items()} == {
        "canary": "platform-2",
        "half": "platform-2",
        "cold": "platform-1",
    }


@pytest.mark.parametrize("draining", [False, True])
@pytest.mark.parametrize(("model", "version"), NAMES)
async def test_readiness(model: str, version: str, *, draining: bool) -> None:
    async with both() as (server, client):
        server.dataplane.draining = draining
        request = pb.ModelReadyRequest(name=model, version=version)
        over_grpc = (await ask(server, "ModelReady", request)).ready
        response = await client.get(f"{path(model, version)}/ready")
    assert response.json()["ready"] is over_grpc
    assert response.status_code == (200 if over_grpc else 503)
    assert not (draining and over_grpc)


@pytest.mark.parametrize("ready", [False, True])
async def test_the_index(*, ready: bool) -> None:
    async with both() as (server, client):
        found = await ask(server, "RepositoryIndex", pb.RepositoryIndexRequest(ready=ready))
        response = await client.post("/v2/repository/index", json={"ready": ready})
    over_grpc = [(each.name, each.version, each.state, each.reason) for each in found.models]
    assert over_grpc == [tuple(each.values()) for each in response.json()]
    assert {state for _, _, state, _ in over_grpc} == (
        {"READY"} if ready else {"READY", "UNAVAILABLE"}
    )


UNKNOWN = [("nope", ""), ("nope", "1"), ("one", "9")]


@pytest.mark.parametrize(("model", "version"), UNKNOWN)
@pytest.mark.parametrize(("method", "suffix"), [("ModelMetadata", ""), ("ModelReady", "/ready")])
async def test_what_is_not_there(method: str, suffix: str, model: str, version: str) -> None:
    request = getattr(pb, f"{method}Request")(name=model, version=version)
    async with both() as (server, client):
        await refused_alike(
            server, method, request, await client.get(path(model, version) + suffix)
        )


@pytest.mark.parametrize("verb", ["load", "unload"])
@pytest.mark.parametrize("model", ["one", "nope"])
async def test_changes_are_refused(verb: str, model: str) -> None:
    method = f"RepositoryModel{verb.capitalize()}"
    request = getattr(pb, f"{method}Request")(model_name=model)
    async with both() as (server, client):
        response = await client.post(f"/v2/repository/models/{model}/{verb}", json={})
        code = await refused_alike(server, method, request, response)
    assert (response.status_code, code) == (400, grpc.StatusCode.INVALID_ARGUMENT)


async def refused_alike(
    server: GrpcServer, method: str, request: Any, response: httpx.Response
) -> grpc.StatusCode:
    """Compares the refusals; returns the status of gRPC."""
    async with calling(server, method) as call:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request.SerializeToString())
    trailers = dict(caught.value.trailing_metadata() or ())
    problem = response.json()
    assert (trailers["code"], caught.value.details()) == (problem["code"], problem["detail"])
    code: grpc.StatusCode = caught.value.code()
    return code
