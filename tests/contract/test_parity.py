"""The same request over HTTP and gRPC: the same tensors, or the same error code and field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import grpc.aio
import httpx
import numpy as np
import pytest

from serve_app.config.ingress import RequestLimits
from serve_app.config.listener import HttpConfig
from serve_app.domain.batching_policy import BatchingPolicy
from serve_app.domain.bytes_tensor import pack_bytes
from serve_app.domain.inference import VersionKey
from serve_app.domain.tensor import DTYPES, Array, TensorSpec
from serve_app.errors import NotReady, Overloaded
from serve_app.grpc.generated.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from serve_app.http.app import create_app
from serve_app.testing import FakeGateway, model_route
from tests.contract.grpc_server import GrpcServer, calling, serving


class Tensor(NamedTuple):
    """An input as a client writes it, right or wrong."""

    datatype: str
    shape: list[int]
    data: bytes
    name: str = "x"


class Case(NamedTuple):
    """One request, and what both protocols must say to it."""

    inputs: list[Tensor]
    code: str = "ok"
    model: str = "echo"
    version: str = ""
    outputs: tuple[str, ...] = ()
    timeout_us: int | None = None


class Answer(NamedTuple):
    """What came back, without the protocol."""

    code: str
    model: str = ""
    version: str = ""
    outputs: tuple[tuple[str, str, tuple[int, ...], bytes], ...] = ()
    detail: str = ""
    retryable: bool | None = None
    request_id: str = ""


def plain(name: str, *values: Any) -> Tensor:
    array = np.array([values], DTYPES[name])
    data = pack_bytes(array) if array.dtype.hasobject else array.tobytes()
    return Tensor(name, list(array.shape), data)


def fp32(*shape: int, name: str = "x", count: int | None = None) -> Tensor:
    size = int(np.prod(shape)) if count is None else count
    return Tensor("FP32", list(shape), np.arange(size, dtype=np.float32).tobytes(), name)


GOOD = fp32(2, 4)
CASES: dict[str, Case] = {
    "good": Case([GOOD]),
    "version": Case([GOOD], version="1"),
    "wanted output": Case([GOOD], outputs=("x",)),
    "long timeout": Case([GOOD], timeout_us=5_000_000),
    "no timeout": Case([GOOD], timeout_us=0),
    **{
        datatype: Case([plain(datatype, *values)], model=datatype)
        for datatype, values in {
            "BOOL": (True, False),
            "UINT8": (0, 255),
            "INT64": (-(2**63), 2**63 - 1),
            "FP16": (1.5, float("nan")),
            "BF16": (1.5, float("-inf")),
            "FP64": (1e308, -0.0),
            "BYTES": (b"", b"\xff\x00"),
        }.items()
    },
    "unknown model": Case([GOOD], "model_not_found", model="nope"),
    "unknown model, bad tensor": Case([fp32(-1)], "model_not_found", model="nope"),
    "unknown version": Case([GOOD], "version_not_found", version="9"),
    "model not ready": Case([GOOD], "not_ready", model="cold"),
    "larger than the whole queue": Case([GOOD], "payload_too_large", model="full"),
    "gateway not ready": Case([GOOD], "not_ready", model="refusing"),
    "gateway overloaded": Case([GOOD], "overloaded", model="overloaded"),
    "model raises": Case([GOOD], "internal", model="raising"),
    "no inputs": Case([], "invalid_input"),
    "missing input": Case([fp32(2, 4, name="y")], "invalid_input"),
    "extra input": Case([GOOD, fp32(2, 4, name="y")], "invalid_input"),
    "input twice": Case([GOOD, GOOD], "invalid_input"),
    "long name": Case([GOOD._replace(name="n" * 129)], "invalid_input"),
    "long output": Case([GOOD], "invalid_input", outputs=("n" * 129,)),
    "unknown version, bad tensor": Case([fp32(-1)], "version_not_found", version="9"),
    "too many texts": Case(
        [Tensor("BYTES", [1_000_001, 2], bytes(8_000_008))], "payload_too_large", model="BYTES"
    ),
    "too many inputs": Case([fp32(1, 4, name=f"x{i}") for i in range(5)], "payload_too_large"),
    "too many rows": Case([fp32(9, 4)], "payload_too_large"),
    "no rows": Case([fp32(0, 4)], "invalid_input"),
    "datatype unknown": Case([GOOD._replace(datatype="STRING")], "invalid_input"),
    "datatype of no model": Case([GOOD._replace(datatype="INT32")], "invalid_input"),
    "shape of no model": Case([fp32(2, 5)], "invalid_input"),
    "scalar": Case([fp32()], "invalid_input"),
    "negative": Case([fp32(-2, -4, count=8)], "invalid_input"),
    "more elements": Case([fp32(2, 4, count=9)], "invalid_input"),
    "fewer elements": Case([fp32(2, 4, count=7)], "invalid_input"),
    "overflowing": Case([fp32(2**33, 2**33, count=4)], "invalid_input"),
    "too many dimensions": Case([fp32(*[1] * 17)], "invalid_input"),
    "empty but huge": Case([fp32(0, 2**62, count=0)], "invalid_input"),
    "bool of two": Case([Tensor("BOOL", [1, 2], b"\x01\x02")], "invalid_input", model="BOOL"),
    "torn element": Case([Tensor("BYTES", [1, 2], b"\2\0\0\0a")], "invalid_input", model="BYTES"),
    "lost bytes": Case([Tensor("BYTES", [1, 1], b"\0\0\0\0a")], "invalid_input", model="BYTES"),
    "unknown output": Case([GOOD], "invalid_input", outputs=("y",)),
    "output twice": Case([GOOD], "invalid_input", outputs=("x", "x")),
    "negative timeout": Case([GOOD], "invalid_input", timeout_us=-1),
    "timeout passed": Case([GOOD], "deadline_exceeded", timeout_us=1, model="slow"),
}


def compute(key: VersionKey, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    if key.model == "raising":
        raise RuntimeError("secret")
    if key.model == "refusing":
        raise NotReady("no replica")
    if key.model == "overloaded":
        raise Overloaded("every replica is busy")
    return inputs


MODELS = [
    model_route(),
    model_route("cold", replicas={"1": 0}),
    model_route("full", batching=BatchingPolicy(max_queue_bytes=1)),
    *[model_route(name) for name in ("refusing", "overloaded", "raising", "slow")],
    *[
        model_route(name, inputs=(TensorSpec(name="x", datatype=name, shape=(-1, 2)),))
        for name in ("BOOL", "UINT8", "INT64", "FP16", "BF16", "FP64", "BYTES")
    ],
]
LIMITS = RequestLimits(max_tensors=4, max_rows=8)


async def over_grpc(server: GrpcServer, case: Case, request_id: str) -> Answer:
    message = ModelInferRequest(model_name=case.model, model_version=case.version)
    for tensor in case.inputs:
        message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        message.raw_input_contents.append(tensor.data)
    for name in case.outputs:
        message.outputs.add(name=name)
    if case.timeout_us is not None:
        message.parameters["timeout"].int64_param = case.timeout_us
    async with calling(server) as call:
        try:
            data = await call(message.SerializeToString(), metadata=(("x-request-id", request_id),))
        except grpc.aio.AioRpcError as error:
            found = dict(error.trailing_metadata() or ())
            return Answer(
                found["code"],
                detail=error.details() or "",
                retryable=found["retryable"] == "true",
                request_id=found["x-request-id"],
            )
    answer = ModelInferResponse.FromString(data)
    outputs = zip(answer.outputs, answer.raw_output_contents, strict=True)
    return Answer(
        "ok",
        answer.model_name,
        answer.model_version,
        tuple((each.name, each.datatype, tuple(each.shape), raw) for each, raw in outputs),
    )


async def over_http(server: GrpcServer, case: Case, request_id: str) -> Answer:
    app: Any = create_app(server.dataplane, HttpConfig(), LIMITS, server.telemetry)
    document: dict[str, Any] = {
        "inputs": [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": tensor.shape,
                "parameters": {"binary_data_size": len(tensor.data)},
            }
            for tensor in case.inputs
        ],
        "outputs": [{"name": name} for name in case.outputs],
        "parameters": {"binary_data_output": True},
    }
    if case.timeout_us is not None:
        document["parameters"]["timeout"] = case.timeout_us
    text = json.dumps(document).encode()
    version = f"/versions/{case.version}" if case.version else ""
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://test"
    ) as client:
        response = await client.post(
            f"/v2/models/{case.model}{version}/infer",
            content=b"".join([text, *[tensor.data for tensor in case.inputs]]),
            headers={
                "inference-header-content-length": str(len(text)),
                "content-type": "application/octet-stream",
                "x-request-id": request_id,
            },
        )
    if response.status_code != 200:
        problem = response.json()
        return Answer(
            problem["code"],
            detail=problem["detail"],
            retryable=problem["retryable"],
            request_id=problem["request_id"],
        )
    size = int(response.headers["inference-header-content-length"])
    return _binary_answer(json.loads(response.content[:size]), response.content[size:])


def _binary_answer(head: dict[str, Any], rest: bytes) -> Answer:
    outputs = []
    for output in head["outputs"]:
        size = output["parameters"]["binary_data_size"]
        outputs.append((output["name"], output["datatype"], tuple(output["shape"]), rest[:size]))
        rest = rest[size:]
    assert not rest
    return Answer("ok", head["model_name"], head["model_version"], tuple(outputs))


@pytest.mark.parametrize("name", CASES)
async def test_http_and_grpc_agree(name: str) -> None:
    case = CASES[name]
    gateway = FakeGateway(compute, delay_s=0.1 if case.model == "slow" else 0.0)
    async with serving(*MODELS, gateway=gateway, limits=LIMITS) as server:
        grpc_answer = await over_grpc(server, case, "parity-1")
        http_answer = await over_http(server, case, "parity-1")
        codes = server.codes()
        traced = [trace.model for trace, _, _ in server.telemetry.finished]
    assert grpc_answer.code == http_answer.code == case.code
    if case.code == "invalid_input":
        # The wording may name the field as its protocol does; the kind of error may not differ.
        grpc_answer = grpc_answer._replace(detail=http_answer.detail)
    assert grpc_answer == http_answer
    assert codes == [case.code, case.code]
    assert traced == 2 * ["" if case.code == "model_not_found" else case.model]


async def test_a_draining_server_refuses_before_it_reads_the_tensors() -> None:
    async with serving(*MODELS, limits=LIMITS) as server:
        server.dataplane.draining = True
        case = Case([fp32(-1)])
        answers = [await over_grpc(server, case, "d"), await over_http(server, case, "d")]
    assert answers[0] == answers[1]
    assert answers[0].code == "draining"
