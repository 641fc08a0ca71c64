"""Hostile and broken calls: each gets its status, its slot is freed, the server lives on."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from serve_app.config.ingress import RequestLimits
from serve_app.config.listener import GrpcConfig
from serve_app.domain.inference import VersionKey
from serve_app.domain.tensor import Array
from serve_app.errors import ClusterError, Overloaded
from serve_app.grpc.generated import open_inference_pb2 as pb
from serve_app.grpc.listener import GrpcListener
from serve_app.testing import FakeGateway
from tests.contract.grpc_server import METHOD, GrpcServer, calling, infer_request, serving

GOOD = infer_request().SerializeToString()
NO_TIME_S = 1e-3


async def failing(call: Any, data: bytes, **options: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(data, **options)
    return caught.value


def trailers(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    return dict(error.trailing_metadata())


async def lives(server: GrpcServer) -> bool:
    async with calling(server) as call:
        answer = pb.ModelInferResponse.FromString(await call(GOOD))
    return answer.model_name == "echo" and server.dataplane.in_flight == 0


async def until_in_flight(server: GrpcServer, count: int, timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while True:
            if server.dataplane.in_flight == count:
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
@pytest.mark.parametrize("size", [2 * 1024 * 1024, 100 * 1024 * 1024])
async def test_messages_above_the_cap_and_bombs(
    compression: grpc.Compression | None, size: int
) -> None:
    async with serving(max_message_bytes=1024 * 1024) as server:
        async with calling(server) as call:
            error = await failing(call, bytes(size), compression=compression)
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await lives(server)


async def test_an_answer_above_the_cap() -> None:
    def blow_up(_key: VersionKey, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"x": np.zeros((1, 100_000), np.float32)}

    async with serving(gateway=FakeGateway(blow_up), max_message_bytes=4096) as server:
        async with calling(server) as call:
            error = await failing(call, GOOD)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert trailers(error)["code"] == "payload_too_large"
        assert server.codes() == ["payload_too_large"]


@pytest.mark.parametrize("junk", [b"\xff", b"\x0a\x7fabc", b"\x0a\x02\xff\xfe", b"\x00" * 50_000])
@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady", "ModelMetadata", "RepositoryIndex"])
async def test_bytes_that_are_no_message(method: str, junk: bytes) -> None:
    async with serving() as server:
        async with calling(server, method) as call:
            error = await failing(call, junk)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert trailers(error)["code"] == "malformed_request"
        assert await lives(server)


async def test_field_code_and_request_id_are_in_the_trailers() -> None:
    message = infer_request()
    message.raw_input_contents.append(b"")
    async with serving() as server, calling(server) as call:
        error = await failing(
            call, message.SerializeToString(), metadata=(("x-request-id", "a:b-1"),)
        )
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    found = trailers(error)
    assert found["field"] == "raw_input_contents"
    assert found["code"] == "invalid_input"
    assert found["retryable"] == "false"
    assert found["x-request-id"] == "a:b-1"
    assert b"INVALID_INPUT" in found["grpc-status-details-bin"]


@pytest.mark.parametrize("given", ["", "x" * 129, "two words", 'inj"ect'])
async def test_unsafe_request_ids_are_replaced(given: str) -> None:
    async with serving() as server, calling(server) as call:
        answered = call(GOOD, metadata=(("x-request-id", given),))
        await answered
        found = dict(await answered.trailing_metadata())
        assert found["x-request-id"] != given
        assert len(found["x-request-id"]) == 32
        assert found["x-model-version"] == "1"


async def test_an_answer_has_trailers_for_those_who_sent_a_request_id() -> None:
    async with serving() as server, calling(server) as call:
        answered = call(GOOD)
        assert pb.ModelInferResponse.FromString(await answered).model_version == "1"
        assert not await answered.trailing_metadata()
        error = await failing(call, b"\xff")
        assert len(trailers(error)["x-request-id"]) == 32
        named = call(GOOD, metadata=(("x-request-id", "a"),))
        await named
        found = dict(await named.trailing_metadata())
    assert found == {"x-request-id": "a", "x-model-version": "1"}


async def test_the_trace_context_is_taken_over() -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with serving() as server, calling(server) as call:
        for given in (trace, "junk"):
            await call(GOOD, metadata=(("traceparent", given),))
    assert [each.traceparent for each, _, _ in server.telemetry.finished] == [trace, ""]


async def test_unknown_metadata_is_ignored() -> None:
    metadata = (("application", "x"), ("serve-multiplexed-model-id", "y"), ("blob-bin", b"\xff"))
    async with serving() as server, calling(server) as call:
        assert await call(GOOD, metadata=metadata)


async def test_metadata_above_the_cap() -> None:
    async with serving() as server:
        async with calling(server) as call:
            error = await failing(call, GOOD, metadata=(("x-big", "a" * 100_000),))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await lives(server)


async def test_a_deadline_of_a_millisecond() -> None:
    async with serving(gateway=FakeGateway(delay_s=0.2)) as server:
        async with calling(server) as call:
            for _ in range(5):
                error = await failing(call, GOOD, timeout=NO_TIME_S)
                assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await until_in_flight(server, 0)
            assert set(server.codes()) <= {"deadline_exceeded"}
        assert await lives(server)


async def test_the_rpc_deadline_reaches_the_gateway() -> None:
    async with serving() as server, calling(server) as call:
        await call(GOOD, timeout=1.5)
        (budget_s,) = server.gateway.batches[0][1].budgets_s
        assert 0.5 < budget_s <= 1.5
        message = infer_request()
        message.parameters["timeout"].int64_param = 700_000
        await call(message.SerializeToString(), timeout=60)
        (budget_s,) = server.gateway.batches[1][1].budgets_s
        assert 0.2 < budget_s <= 0.7


async def test_cancelling_frees_the_slot() -> None:
    async with serving(gateway=FakeGateway(delay_s=30)) as server:
        async with calling(server) as call:
            calls = [call(GOOD) for _ in range(20)]
            await until_in_flight(server, 20)
            for each in calls:
                each.cancel()
            await until_in_flight(server, 0)
        assert server.codes() == ["client_gone"] * 20
        server.gateway.delay_s = 0
        assert await lives(server)


async def test_a_client_that_vanishes_frees_the_slot() -> None:
    async with serving(gateway=FakeGateway(delay_s=30)) as server:
        async with calling(server) as call:
            pending = call(GOOD)
            await until_in_flight(server, 1)
        await until_in_flight(server, 0)
        assert pending.cancelled()


async def test_more_calls_than_allowed_are_told_to_come_back() -> None:
    gateway = FakeGateway(delay_s=0.3)
    async with serving(gateway=gateway, max_concurrent_rpcs=4) as server:
        async with calling(server) as call:
            answers = await asyncio.gather(*[call(GOOD) for _ in range(8)], return_exceptions=True)
        refused = [each for each in answers if isinstance(each, grpc.aio.AioRpcError)]
        assert len(refused) == 4
        for error in refused:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert trailers(error)["code"] == Overloaded.code
            assert trailers(error)["retryable"] == "true"
            assert int(trailers(error)["retry-after-ms"]) >= 1000
        assert await lives(server)


async def test_thousands_of_streams_on_one_connection() -> None:
    async with serving(gateway=FakeGateway(delay_s=0.05), max_concurrent_rpcs=64) as server:
        async with calling(server) as call:
            answers = await asyncio.gather(
                *[call(GOOD) for _ in range(3000)], return_exceptions=True
            )
        refused = [each for each in answers if isinstance(each, grpc.aio.AioRpcError)]
        assert 0 < len(refused) < 3000
        assert {each.code() for each in refused} == {grpc.StatusCode.UNAVAILABLE}
        assert {trailers(each)["code"] for each in refused} == {Overloaded.code}
        assert await lives(server)


@pytest.mark.parametrize(
    "preface", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00" * 50, b"\x00" * 10_000]
)
async def test_a_garbage_preface(preface: bytes) -> None:
    async with serving() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(preface)
        await writer.drain()
        async with asyncio.timeout(5):
            while await reader.read(65536):
                pass
        writer.close()
        assert await lives(server)


def _raise_key_error(*_: object) -> None:
    raise KeyError("/srv/secret")


async def test_unexpected_errors_tell_nothing_but_the_request_id(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving() as server:
        monkeypatch.setattr("serve_app.dataplane.lay_out", _raise_key_error)
        async with calling(server) as call:
            with caplog.at_level(logging.ERROR):
                error = await failing(call, GOOD, metadata=(("x-request-id", "find-me"),))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in f"{error.details()}{error.trailing_metadata()}"
    assert trailers(error)["code"] == "internal"
    assert trailers(error)["x-request-id"] == "find-me"
    (record,) = [each for each in caplog.records if each.exc_info]
    assert record.__dict__["request_id"] == "find-me"
    assert server.codes() == ["internal"]


async def test_a_model_that_raises_tells_nothing() -> None:
    def fail(_key: VersionKey, _inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        raise RuntimeError("/srv/secret")

    async with serving(gateway=FakeGateway(fail)) as server, calling(server) as call:
        error = await failing(call, GOOD)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in f"{error.details()}{error.trailing_metadata()}"


async def test_limits_on_tensors_and_rows() -> None:
    async with serving(limits=RequestLimits(max_rows=8)) as server, calling(server) as call:
        error = await failing(call, infer_request(rows=9).SerializeToString())
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_methods_that_we_do_not_have() -> None:
    async with serving() as server:
        for method in ("ModelStreamInfer", "ModelStatistics", "Nothing"):
            async with calling(server, method) as call:
                error = await failing(call, b"")
                assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        async with grpc.aio.insecure_channel(server.address) as channel:
            error = await failing(channel.unary_unary("/other.Service/Method"), b"")
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert await lives(server)


async def test_only_the_one_repository_has_an_index() -> None:
    async with serving() as server, calling(server, "RepositoryIndex") as call:
        request = pb.RepositoryIndexRequest(repository_name="other")
        error = await failing(call, request.SerializeToString())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert METHOD.startswith("/inference.")


async def test_a_port_in_use_is_named() -> None:
    async with serving() as server:
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            port = holder.getsockname()[1]
            listener = GrpcListener(
                server.dataplane, GrpcConfig(port=port), RequestLimits(), server.telemetry
            )
            with pytest.raises(ClusterError, match=f"port {port} in use"):
                await listener.start()
            await listener.drain(1.0)


async def test_two_listeners_share_a_port() -> None:
    async with serving() as first, serving(port=first.port) as second:
        for _ in range(40):
            assert await lives(first)
        assert first.gateway.batches
        assert second.gateway.batches
