"""Clients that share no code with gRPC's C core: grpclib on h2, and nghttp2's h2load."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpclib
import numpy as np
import pytest
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.exceptions import GRPCError

from serve_app.domain.tensor import TensorSpec
from serve_app.grpc.generated import open_inference_pb2 as pb
from serve_app.testing import FakeGateway, model_route
from tests.contract.grpc_server import METHOD, GrpcServer, infer_request, serving
from tests.requirements import require_program


def infer(channel: Channel) -> UnaryUnaryMethod[pb.ModelInferRequest, pb.ModelInferResponse]:
    return UnaryUnaryMethod(
        channel, METHOD + "ModelInfer", pb.ModelInferRequest, pb.ModelInferResponse
    )


async def test_grpclib_calls_many_at_once_and_large() -> None:
    wide = model_route("wide", inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 100_000)),))
    echo = model_route("echo")
    async with serving(echo, wide) as server, Channel("127.0.0.1", server.port) as channel:
        call = infer(channel)
        answers = await asyncio.gather(*[call(infer_request()) for _ in range(200)])
        assert {each.model_version for each in answers} == {"1"}
        message = pb.ModelInferRequest(model_name="wide")
        message.inputs.add(name="x", datatype="FP32", shape=[20, 100_000])
        sent = np.random.default_rng(0).random(2_000_000, np.float32).tobytes()
        message.raw_input_contents.append(sent)
        answer = await call(message)
        assert answer.raw_output_contents[0] == sent
    assert set(server.codes()) == {"ok"}


async def test_grpclib_reads_errors_and_trailers() -> None:
    async with serving() as server, Channel("127.0.0.1", server.port) as channel:
        with pytest.raises(GRPCError) as caught:
            await infer(channel)(infer_request("größe"))
        assert caught.value.status is grpclib.Status.NOT_FOUND
        assert caught.value.message == "model 'größe' is not served here"
        async with infer(channel).open(metadata={"x-request-id": "mine"}) as stream:
            await stream.send_message(infer_request(), end=True)
            assert await stream.recv_message() is not None
            await stream.recv_trailing_metadata()
            assert stream.trailing_metadata is not None
            assert stream.trailing_metadata["x-request-id"] == "mine"


async def test_grpclib_cancels_by_its_deadline() -> None:
    async with serving(gateway=FakeGateway(delay_s=30)) as server:
        async with Channel("127.0.0.1", server.port) as channel:
            with pytest.raises(asyncio.TimeoutError):
                await infer(channel)(infer_request(), timeout=0.2)
            assert await _until_idle(server)
        assert server.codes() == ["deadline_exceeded"]


async def _until_idle(server: GrpcServer) -> bool:
    async with asyncio.timeout(5.0):
        while True:
            if server.dataplane.in_flight == 0 and server.codes():
                return True
            await asyncio.sleep(0.01)


async def test_h2load(tmp_path: Path) -> None:
    program = require_program("h2load", "nghttp2-client")
    message = infer_request().SerializeToString()
    body = tmp_path / "body"
    body.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    async with serving() as server:
        process = await asyncio.create_subprocess_exec(
            program,
            *("-n", "3000", "-c", "4", "-m", "50", "-d", str(body)),
            *("-H", "content-type: application/grpc", "-H", "te: trailers"),
            f"http://{server.address}{METHOD}ModelInfer",
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
    assert b"3000 succeeded, 0 failed, 0 errored, 0 timeout" in out
    assert server.codes() == ["ok"] * 3000
