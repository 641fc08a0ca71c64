"""Calls ModelInfer as fast as it is answered, and prints what came of it as JSON.

Each of N callers sends the same serialised request again as soon as it has its answer. gRPC's own
work in this process is most of its cost: messages are bytes here, and only samples are parsed.

Run it: python -m benchmarks.grpc_load --target 127.0.0.1:8001 --connections 16 --seconds 5
"""

from __future__ import annotations

import argparse
import asyncio
import json
from array import array
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np
import uvloop
from google.protobuf.message import DecodeError
from grpc import aio

from serve_app.grpc.generated.open_inference_pb2 import ModelInferRequest, ModelInferResponse

METHOD = "/inference.GRPCInferenceService/ModelInfer"
_SAMPLE = 64
"""One answer in so many is parsed; all others must have its length."""
_TIMEOUT_S = 30.0
_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


@dataclass(frozen=True, slots=True)
class Report:
    """What one run found."""

    target: str
    connections: int
    channels: int
    seconds: float
    answered: int
    """Good answers."""
    errors: int
    """Calls that failed, and answers without finite numbers."""
    calls_per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    first_error: str


class Load:
    """Counts the calls of one run."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._expected_size = 0
        self.seconds = array("d")
        self.errors = 0
        self.first_error = ""

    async def call_until(self, call: Any, end: float) -> None:
        """One caller: calls again and again."""
        while (began := perf_counter()) < end:
            try:
                answer: bytes = await call(self._request, timeout=_TIMEOUT_S)
            except aio.AioRpcError as exc:
                self._fail(f"{exc.code().name}: {exc.details()}")
                continue
            if len(answer) != self._expected_size or len(self.seconds) % _SAMPLE == 0:
                fault = fault_of(answer)
                if fault:
                    self._fail(fault)
                    continue
                self._expected_size = len(answer)
            self.seconds.append(perf_counter() - began)

    def _fail(self, why: str) -> None:
        self.errors += 1
        self.first_error = self.first_error or why


def digits_request(*, typed: bool = False) -> bytes:
    """One row of 64 FP32 for the model digits, raw or typed."""
    row = (np.arange(64) % 17).astype(np.float32)
    message = ModelInferRequest(model_name="digits", model_version="2")
    tensor = message.inputs.add(name="x", datatype="FP32", shape=[1, 64])
    if typed:
        tensor.contents.fp32_contents.extend(row.tolist())
    else:
        message.raw_input_contents.append(row.tobytes())
    return message.SerializeToString()


def fault_of(data: bytes) -> str:
    """What is wrong with an answer; empty if it is a ModelInferResponse of finite numbers."""
    try:
        answer = ModelInferResponse.FromString(data)
    except DecodeError:
        return "the answer is no ModelInferResponse"
    if not answer.outputs:
        return "the answer has no outputs"
    for index, tensor in enumerate(answer.outputs):
        if answer.raw_output_contents:
            numbers = np.frombuffer(answer.raw_output_contents[index], np.float32)
        else:
            numbers = np.array(tensor.contents.fp32_contents, np.float32)
        if numbers.size != np.prod(tensor.shape) or not np.isfinite(numbers).all():
            return f"output {tensor.name!r} has not the finite numbers that its shape says"
    return ""


async def measure(
    target: str, connections: int, seconds: float, request: bytes, channels: int = 0
) -> Report:
    """Loads a server.

    Args:
        target: host:port.
        connections: calls at a time.
        seconds: for how long.
        request: the serialised request.
        channels: connections that the calls share; 0: each call has its own.
    """
    channels = min(channels or connections, connections)
    opened = [aio.insecure_channel(target, options=_OPTIONS) for _ in range(channels)]
    try:
        await asyncio.gather(*[channel.channel_ready() for channel in opened])
        calls = [channel.unary_unary(METHOD) for channel in opened]
        load = Load(request)
        began = perf_counter()
        end = began + seconds
        await asyncio.gather(
            *[load.call_until(calls[index % channels], end) for index in range(connections)]
        )
        elapsed = perf_counter() - began
    finally:
        await asyncio.gather(*[channel.close() for channel in opened])
    p50, p90, p99 = np.percentile(np.array(load.seconds or [0.0]) * 1e3, [50, 90, 99]).tolist()
    answered = len(load.seconds)
    return Report(
        target,
        connections,
        channels,
        elapsed,
        answered,
        load.errors,
        answered / elapsed,
        p50,
        p90,
        p99,
        load.first_error,
    )


def main() -> None:
    """Measures once and prints the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grpc_load")
    parser.add_argument("--target", required=True, help="host:port")
    parser.add_argument("--connections", type=int, default=16, help="calls at a time")
    parser.add_argument("--channels", type=int, default=0, help="connections that they share")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--typed", action="store_true", help="contents instead of raw bytes")
    given = parser.parse_args()
    request = digits_request(typed=given.typed)
    report = uvloop.run(
        measure(given.target, given.connections, given.seconds, request, given.channels)
    )
    print(json.dumps(asdict(report)))


if __name__ == "__main__":
    main()
