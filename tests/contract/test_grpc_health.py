"""Health checks and the drain."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serve_app.testing import FakeGateway
from tests.contract.grpc_server import GrpcServer, calling, free_port, infer_request, serving

GOOD = infer_request().SerializeToString()
SERVICE = "inference.GRPCInferenceService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@asynccontextmanager
async def probing(server: GrpcServer) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield health_pb2_grpc.HealthStub(channel)


async def state(stub: Any, service: str = "") -> int:
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return int(answer.status)


@pytest.mark.parametrize("service", ["", SERVICE])
async def test_check_follows_readiness_at_once(service: str) -> None:
    async with serving() as server, probing(server) as stub:
        assert await state(stub, service) == SERVING
        server.dataplane.draining = True
        assert await state(stub, service) == NOT_SERVING
        server.dataplane.draining = False
        assert await state(stub, service) == SERVING


async def test_unknown_services_are_not_found() -> None:
    async with serving() as server, probing(server) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await state(stub, "nothing")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_watch_hears_of_every_change_and_ends_with_the_drain() -> None:
    async with serving() as server, probing(server) as stub:
        stream = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await stream.read()).status == SERVING
        server.dataplane.draining = True
        assert (await stream.read()).status == NOT_SERVING
        server.dataplane.draining = False
        assert (await stream.read()).status == SERVING
        drain = asyncio.create_task(server.listener.drain(5.0))
        assert (await stream.read()).status == NOT_SERVING
        assert await stream.read() is grpc.aio.EOF
        async with asyncio.timeout(2.0):
            await drain


async def test_streams_that_watch_leave_room_for_checks_and_inference() -> None:
    async with serving() as server, probing(server) as stub, calling(server) as call:
        request = health_pb2.HealthCheckRequest()
        streams = [stub.Watch(request) for _ in range(100)]
        for stream in streams:
            assert (await stream.read()).status == SERVING
        for _ in range(50):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Watch(request).read()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert dict(caught.value.trailing_metadata() or ())["code"] == "overloaded"
        assert await state(stub) == SERVING
        assert await call(GOOD)
        streams.pop().cancel()
        async with asyncio.timeout(5.0):
            while True:
                try:
                    assert (await stub.Watch(request).read()).status == SERVING
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.01)
                else:
                    break


async def test_health_answers_while_inference_is_at_its_cap() -> None:
    gateway = FakeGateway(delay_s=0.5)
    async with (
        serving(gateway=gateway, max_concurrent_rpcs=2) as server,
        calling(server) as call,
        probing(server) as stub,
    ):
        busy = [call(GOOD) for _ in range(2)]
        for _ in range(20):
            assert await state(stub) == SERVING
        await asyncio.gather(*busy)


async def test_what_is_in_flight_finishes() -> None:
    async with serving(gateway=FakeGateway(delay_s=0.3)) as server, calling(server) as call:
        calls = [call(GOOD) for _ in range(5)]
        async with asyncio.timeout(5.0):
            while True:
                if server.dataplane.in_flight == 5:
                    break
                await asyncio.sleep(0.01)
        await server.listener.drain(5.0)
        assert len(await asyncio.gather(*calls)) == 5
        assert server.codes() == ["ok"] * 5


async def test_what_takes_too_long_is_cut() -> None:
    async with serving(gateway=FakeGateway(delay_s=30)) as server, calling(server) as call:
        pending = call(GOOD)
        await asyncio.sleep(0.2)
        async with asyncio.timeout(5.0):
            await server.listener.drain(0.2)
        with pytest.raises(grpc.aio.AioRpcError):
            await pending


async def test_draining_twice_and_before_the_start_is_harmless() -> None:
    async with serving() as server:
        await server.listener.drain(1.0)
        await server.listener.drain(1.0)


REPLACEABLE = """
import asyncio, sys
from tests.contract.grpc_server import serving
from serve_app.testing import FakeGateway

async def main(port):
    gateway = FakeGateway(delay_s=0.002)
    async with serving(gateway=gateway, port=port, max_connection_age_s=0.5) as server:
        print("up", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await server.listener.drain(20.0)

asyncio.run(main(int(sys.argv[1])))
"""


@asynccontextmanager
async def ingress(port: int) -> AsyncIterator[None]:
    """A listener in a process of its own; drained at the end."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", REPLACEABLE, str(port), stdin=pipe, stdout=pipe
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    try:
        yield
    finally:
        process.stdin.close()
        assert await process.wait() == 0


async def test_replacing_the_process_under_load_loses_no_request() -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    answered = 0
    done = asyncio.Event()

    async def load(call: Any) -> None:
        nonlocal answered
        while not done.is_set():
            await call(GOOD, timeout=10)
            answered += 1

    first, second = ingress(port), ingress(port)
    await first.__aenter__()
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        workers = [asyncio.create_task(load(call)) for _ in range(16)]
        await asyncio.sleep(0.5)
        await second.__aenter__()
        await first.__aexit__(None, None, None)
        before = answered
        await asyncio.sleep(0.3)
        done.set()
        await asyncio.gather(*workers)
        assert answered > before > 0
    await second.__aexit__(None, None, None)
