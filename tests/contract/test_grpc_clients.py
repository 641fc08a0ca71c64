"""Stock clients of Triton, unmodified, against our listener."""

from __future__ import annotations

import asyncio
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from serve_app.domain.tensor import DTYPES, Array, TensorSpec
from serve_app.grpc.generated.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from serve_app.testing import model_route
from tests.contract.grpc_server import GrpcServer, calling, serving

VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False, True],
    "UINT8": [0, 1, 255],
    "UINT16": [0, 1, 65535],
    "UINT32": [0, 1, 2**32 - 1],
    "UINT64": [0, 1, 2**64 - 1],
    "INT8": [-128, 0, 127],
    "INT16": [-(2**15), 0, 2**15 - 1],
    "INT32": [-(2**31), 0, 2**31 - 1],
    "INT64": [-(2**63), 0, 2**63 - 1],
    "FP16": [-0.0, float("nan"), 65504.0],
    "BF16": [1.5, float("-inf"), 3e38],
    "FP32": [1.5, float("nan"), 3e38],
    "FP64": [1.5, float("inf"), 1e308],
    "BYTES": [b"", "größe".encode(), b"\xff\x00"],
}


def tensor(datatype: str) -> Array:
    return np.array([VALUES[datatype]], DTYPES[datatype])


def every_datatype() -> Any:
    specs = tuple(TensorSpec(name=name, datatype=name, shape=(-1, 3)) for name in DTYPES)
    return model_route("all", inputs=specs)


def one(datatype: str) -> Any:
    return model_route("one", inputs=(TensorSpec(name="x", datatype=datatype, shape=(-1, 3)),))


def stock_input(name: str, datatype: str, array: Array, client: Any = triton) -> Any:
    tensor = client.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def equal(left: Array, right: Array) -> bool:
    if right.dtype.hasobject:
        return bool(left.tolist() == right.tolist())
    return bool(left.dtype == right.dtype and left.tobytes() == right.tobytes())


@pytest.mark.parametrize("datatype", DTYPES)
async def test_every_datatype_raw(datatype: str) -> None:
    sent = tensor(datatype)
    async with (
        serving(one(datatype)) as server,
        triton_aio.InferenceServerClient(server.address) as client,
    ):
        answer = await client.infer("one", [stock_input("x", datatype, sent, triton_aio)])
        assert equal(answer.as_numpy("x"), sent)
        arrived = server.gateway.batches[0][1].inputs["x"]
        assert arrived.dtype == sent.dtype
        assert equal(arrived, sent)


@pytest.mark.parametrize("datatype", sorted(set(DTYPES) - {"FP16", "BF16"}))
async def test_every_datatype_typed(datatype: str) -> None:
    sent = tensor(datatype)
    field = {"BYTES": "bytes_contents", "BOOL": "bool_contents"}.get(datatype)
    if field is None:
        kind, bits = datatype.rstrip("0123456789"), int(datatype.lstrip("UINTFP"))
        prefix = {"INT": "int", "UINT": "uint", "FP": "fp"}[kind]
        size = str(bits) if kind == "FP" or bits == 64 else ""
        field = f"{prefix}{size}_contents"
    message = ModelInferRequest(model_name="one")
    item = message.inputs.add(name="x", datatype=datatype, shape=sent.shape)
    getattr(item.contents, field).extend(sent.ravel().tolist())
    async with serving(one(datatype)) as server, calling(server) as call:
        answer = ModelInferResponse.FromString(await call(message.SerializeToString()))
    assert equal(server.gateway.batches[0][1].inputs["x"], sent)
    assert not answer.raw_output_contents
    assert answer.outputs[0].contents == item.contents


async def test_all_datatypes_in_one_request() -> None:
    async with (
        serving(every_datatype()) as server,
        triton_aio.InferenceServerClient(server.address) as client,
    ):
        inputs = [stock_input(name, name, tensor(name), triton_aio) for name in DTYPES]
        answer = await client.infer("all", inputs, request_id="mine")
        assert answer.get_response().id == "mine"
        assert answer.get_response().model_version == "1"
        for name in DTYPES:
            assert equal(answer.as_numpy(name), tensor(name))
        wanted = [triton_aio.InferRequestedOutput(name) for name in ("INT8", "BF16")]
        answer = await client.infer("all", inputs, outputs=wanted, model_version="1")
        assert [each.name for each in answer.get_response().outputs] == ["INT8", "BF16"]
        assert answer.as_numpy("BF16").dtype == ml_dtypes.bfloat16


def use_sync_client(address: str) -> None:
    with triton.InferenceServerClient(address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("one")
        assert client.is_model_ready("one", "1")
        metadata = client.get_server_metadata()
        assert metadata.name == "serve-app"
        assert "model_repository" in metadata.extensions
        model = client.get_model_metadata("one")
        assert (model.name, list(model.versions), model.platform) == ("one", ["1"], "test")
        assert (model.inputs[0].name, model.inputs[0].datatype) == ("x", "FP32")
        assert list(model.inputs[0].shape) == [-1, 3]
        index = client.get_model_repository_index()
        assert [(m.name, m.version, m.state) for m in index.models] == [("one", "1", "READY")]
        sent = np.arange(60, dtype=np.float32).reshape(20, 3)
        answer = client.infer("one", [stock_input("x", "FP32", sent)], client_timeout=5.0)
        assert equal(answer.as_numpy("x"), sent)
        answer = client.infer(
            "one",
            [stock_input("x", "FP32", sent)],
            compression_algorithm="gzip",
            headers={"x-request-id": "abc"},
            parameters={"free": "text"},
            timeout=5_000_000,
            priority=1,
            sequence_id=0,
        )
        assert equal(answer.as_numpy("x"), sent)


async def test_the_synchronous_client() -> None:
    async with serving(one("FP32")) as server:
        await asyncio.to_thread(use_sync_client, server.address)
    assert server.telemetry.finished[-1][0].request_id == "abc"
    assert set(server.codes()) == {"ok"}


async def test_large_tensors_in_both_directions() -> None:
    sent = np.random.default_rng(0).random((2000, 1000), np.float32)
    model = model_route("one", inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 1000)),))
    async with (
        serving(model) as server,
        triton_aio.InferenceServerClient(server.address) as client,
    ):
        answer = await client.infer("one", [stock_input("x", "FP32", sent, triton_aio)])
        assert equal(answer.as_numpy("x"), sent)


async def refusal(server: GrpcServer, **change: Any) -> InferenceServerException:
    call = {"model_name": "one", "inputs": [stock_input("x", "FP32", tensor("FP32"), triton_aio)]}
    async with triton_aio.InferenceServerClient(server.address) as client:
        with pytest.raises(InferenceServerException) as caught:
            await client.infer(**{**call, **change})
    return caught.value


async def test_errors_as_the_stock_client_shows_them() -> None:
    async with serving(
        one("FP32"), model_route("cold", replicas={"1": 0}, weights={"1": 100})
    ) as server:
        unknown = await refusal(server, model_name="nope")
        assert unknown.status() == "StatusCode.NOT_FOUND"
        assert unknown.message() == "model 'nope' is not served here"
        version = await refusal(server, model_version="9")
        assert version.status() == "StatusCode.NOT_FOUND"
        cold = await refusal(server, model_name="cold")
        assert cold.status() == "StatusCode.UNAVAILABLE"
        late = await refusal(server, timeout=1)
        assert late.status() == "StatusCode.DEADLINE_EXCEEDED"
        wrong = await refusal(server, inputs=[stock_input("x", "INT64", tensor("INT64"))])
        assert wrong.status() == "StatusCode.INVALID_ARGUMENT"
        assert "datatype INT64 is not the declared FP32" in wrong.message()
    assert server.codes() == [
        "model_not_found",
        "version_not_found",
        "not_ready",
        "deadline_exceeded",
        "invalid_input",
    ]


async def test_model_control_is_refused_in_clear_words() -> None:
    async with (
        serving(one("FP32")) as server,
        triton_aio.InferenceServerClient(server.address) as client,
    ):
        for control in (client.load_model, client.unload_model):
            with pytest.raises(InferenceServerException, match="configuration") as caught:
                await control("one")
            assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
        with pytest.raises(InferenceServerException) as caught:
            await client.get_model_config("one")
        assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


async def test_readiness_of_models() -> None:
    cold = model_route("cold", weights={"1": 100}, replicas={"1": 0, "2": 1})
    async with (
        serving(cold) as server,
        triton_aio.InferenceServerClient(server.address) as client,
    ):
        assert not await client.is_model_ready("cold")
        assert not await client.is_model_ready("cold", "1")
        assert await client.is_model_ready("cold", "2")
        for name, version in (("nope", ""), ("cold", "9")):
            with pytest.raises(InferenceServerException, match=r"not served|no version"):
                await client.is_model_ready(name, version)
        index = await client.get_model_repository_index()
        assert [(each.version, each.state, bool(each.reason)) for each in index.models] == [
            ("1", "UNAVAILABLE", True),
            ("2", "READY", False),
        ]
        described = await client.get_model_metadata("cold", "2")
        assert list(described.versions) == ["2"]
        server.dataplane.draining = True
        assert not await client.is_server_ready()
        assert not await client.is_model_ready("cold", "2")
        assert await client.is_server_live()
