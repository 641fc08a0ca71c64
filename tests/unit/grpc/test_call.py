"""What calls hold, and what becomes of it when they end."""

from __future__ import annotations

import asyncio
import gzip
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse

from serve_app.config.ingress import RequestLimits
from serve_app.config.listener import GrpcConfig
from serve_app.dataplane import DataPlane
from serve_app.domain.tensor import TensorSpec
from serve_app.grpc.generated.open_inference_pb2 import ModelInferRequest
from serve_app.grpc.health import HEALTH
from serve_app.grpc.names import SERVICE
from serve_app.grpc.service import Service
from serve_app.http2 import frames
from serve_app.http2.frames import DATA, END_STREAM, ErrorCode, frame
from serve_app.testing import FakeGateway, RecordingTelemetry, model_route, route_table
from tests.unit.http2.wire import LIMITS, Peer

WIDE = (TensorSpec(name="x", datatype="FP32", shape=(-1, -1)),)


class Caller(Peer):
    """A client of the real service, which begins to answer after a while."""

    def __init__(self) -> None:
        self.telemetry = RecordingTelemetry()
        self.dataplane = DataPlane(FakeGateway(delay_s=30.0), RequestLimits())
        self.dataplane.update(route_table(model_route("wide", inputs=WIDE)))
        settings = (GrpcConfig(), RequestLimits(), self.telemetry, LIMITS)
        self.service = Service(self.dataplane, *settings)
        self.path = f"/{SERVICE}/ModelInfer"
        super().__init__(application=self.service)

    def block(self, *more: tuple[str, str]) -> bytes:
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", self.path),
            ("content-type", "application/grpc"),
        ]
        encoded: bytes = self.encoder.encode([*headers, *more])
        return encoded

    def compressed(self, stream: int, message: bytes) -> bytes:
        packed = gzip.compress(message)
        data = b"\1" + len(packed).to_bytes(4, "big") + packed
        parts = [data[start : start + 2**20] for start in range(0, len(data), 2**20)]
        return (
            self.headers(stream, ("grpc-encoding", "gzip"))
            + b"".join([frame(DATA, 0, stream, part) for part in parts])
            + frame(DATA, END_STREAM, stream, b"")
        )


def wide(values: Any) -> bytes:
    message = ModelInferRequest(model_name="wide", raw_input_contents=[values.tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=[1, len(values)])
    return message.SerializeToString()


def cancel(stream: int) -> bytes:
    return frames.reset(stream, ErrorCode.CANCEL)


async def test_headers_count() -> None:
    peer = Caller()
    peer.send(peer.headers(1))
    least = peer.state.buffered
    peer.send(peer.headers(3, ("a", "b" * 10_000)))
    assert peer.state.buffered > 2 * least + 10_000
    peer.send(cancel(1), cancel(3))
    assert peer.state.buffered == 0


@pytest.mark.parametrize("elements", [1_000_000, 10_000_000])
async def test_messages_count_as_large_as_they_are_inflated(elements: int) -> None:
    peer = Caller()
    peer.send(peer.compressed(1, wide(np.zeros(elements, np.float32))))
    async with asyncio.timeout(10.0):
        while True:
            if peer.dataplane.in_flight:
                break
            await asyncio.sleep(0.01)
    assert peer.state.buffered > 4 * elements
    peer.send(cancel(1))
    assert peer.state.buffered == peer.dataplane.in_flight == 0


async def test_compressed_messages_of_calls_that_are_over_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inflated: list[int] = []
    monkeypatch.setattr("serve_app.grpc.call.inflate", lambda *_: inflated.append(1))
    held = threading.Event()
    with ThreadPoolExecutor(1) as busy:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(busy)
        busy.submit(held.wait)
        message = np.random.default_rng(0).bytes(100_000)
        peer = Caller()
        tracemalloc.start()
        for stream in range(1, 101, 2):
            peer.send(peer.compressed(stream, message), cancel(stream))
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        held.set()
    await asyncio.sleep(0)
    assert kept < 1_000_000
    assert not inflated
    assert peer.telemetry.finished[-1][2] == "client_gone"


async def test_a_watch_that_crosses_the_shutdown_is_told_and_ended() -> None:
    peer = Caller()
    peer.path = f"/{HEALTH}/Watch"
    peer.service.health.stop()
    peer.send(peer.call(1, bytes(5)))
    assert peer.data(1)[5:] == HealthCheckResponse(status="NOT_SERVING").SerializeToString()
    assert peer.finished(1)
    assert not peer.service.health.watches
