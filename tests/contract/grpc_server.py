"""A real gRPC listener on a free port, with a fake gateway behind it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio
import numpy as np

from serve_app.config.ingress import RequestLimits
from serve_app.config.listener import GrpcConfig
from serve_app.dataplane import DataPlane
from serve_app.domain.routing import ModelRoute
from serve_app.grpc.generated.open_inference_pb2 import ModelInferRequest
from serve_app.grpc.listener import GrpcListener
from serve_app.testing import FakeGateway, RecordingTelemetry, route_table

METHOD = "/inference.GRPCInferenceService/"


@dataclass
class GrpcServer:
    """What a test may look at."""

    port: int
    dataplane: DataPlane
    gateway: FakeGateway
    telemetry: RecordingTelemetry
    listener: GrpcListener

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def codes(self) -> list[str]:
        return [code for _, _, code in self.telemetry.finished]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def serving(
    *models: ModelRoute,
    gateway: FakeGateway | None = None,
    limits: RequestLimits | None = None,
    **config: Any,
) -> AsyncIterator[GrpcServer]:
    """Starts a listener and drains it at the end."""
    gateway = gateway or FakeGateway()
    limits = limits or RequestLimits()
    dataplane = DataPlane(gateway, limits)
    dataplane.update(route_table(*models))
    telemetry = RecordingTelemetry()
    settings = {"port": free_port(), "max_connection_age_s": None, **config}
    grpc_config = GrpcConfig.model_validate(settings)
    listener = GrpcListener(dataplane, grpc_config, limits, telemetry)
    await listener.start()
    try:
        yield GrpcServer(grpc_config.port, dataplane, gateway, telemetry, listener)
    finally:
        await listener.drain(0.2)


@asynccontextmanager
async def calling(server: GrpcServer, method: str = "ModelInfer") -> AsyncIterator[Any]:
    """A bare call of one method, bytes in and bytes out, on a connection of its own."""
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
    ]
    async with grpc.aio.insecure_channel(server.address, options=options) as channel:
        yield channel.unary_unary(METHOD + method)


def infer_request(model: str = "echo", rows: int = 1, width: int = 4) -> ModelInferRequest:
    """A raw request that the echo model answers."""
    message = ModelInferRequest(model_name=model)
    message.inputs.add(name="x", datatype="FP32", shape=[rows, width])
    message.raw_input_contents.append(np.zeros((rows, width), np.float32).tobytes())
    return message
