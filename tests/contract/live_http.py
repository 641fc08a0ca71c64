"""The real HTTP listener around a fake gateway, in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from serve_app.config.ingress import RequestLimits
from serve_app.config.listener import HttpConfig
from serve_app.dataplane import DataPlane
from serve_app.domain.inference import VersionKey
from serve_app.domain.tensor import BYTES, DTYPES, Array, TensorSpec
from serve_app.http.app import create_app
from serve_app.http.listener import HttpListener
from serve_app.testing import (
    FakeControl,
    FakeDeployer,
    FakeGateway,
    RecordingTelemetry,
    model_route,
    route_table,
)

T = TypeVar("T")
HOST = "127.0.0.1"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def spec(name: str, datatype: str, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape)


ROUTES = (
    model_route("echo"),
    model_route("digits", inputs=(spec("x", "FP32", -1, 64),), outputs=(spec("y", "FP32", -1, 1),)),
    model_route(
        "minilm",
        inputs=(spec("text", BYTES, -1),),
        outputs=(spec("embedding", "FP32", -1, 4), spec("tokens", "INT32", -1)),
    ),
    model_route(
        "pair",
        inputs=(spec("a", "INT32", -1, 2), spec("b", BYTES, -1)),
        weights={"1": 100},
        replicas={"2": 1, "3": 0},
    ),
    *(model_route(f"echo_{name}", inputs=(spec("x", name, -1, -1),)) for name in DTYPES),
)


def compute(key: VersionKey, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """Sums for digits, lengths for minilm, and an echo for every other model."""
    if key.model == "digits":
        return {"y": inputs["x"].sum(axis=1, keepdims=True)}
    if key.model == "minilm":
        lengths = np.array([len(text) for text in inputs["text"].tolist()])
        embedding = np.repeat(lengths[:, None], 4, axis=1).astype(np.float32) / 3
        return {"embedding": embedding, "tokens": lengths.astype(np.int32)}
    return inputs


class LiveServer:
    """A listener on a free port, and the fakes behind it."""

    def __init__(
        self, new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None, **http: Any
    ) -> None:
        self.http = HttpConfig(host=HOST, **{"port": free_port(), **http})
        self.gateway = FakeGateway(compute)
        self.telemetry = RecordingTelemetry()
        self.limits = RequestLimits()
        self._loop = (new_loop or asyncio.new_event_loop)()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def address(self) -> str:
        return f"{HOST}:{self.http.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def start(self) -> None:
        self._thread.start()
        self.run(self._start())

    async def _start(self) -> None:
        self.dataplane = DataPlane(self.gateway, self.limits)
        self.dataplane.update(route_table(*ROUTES))
        control = FakeControl(echo=ROUTES[0].release, digits=ROUTES[1].release)
        app = create_app(
            self.dataplane, self.http, self.limits, self.telemetry, control, FakeDeployer()
        )
        self.listener = HttpListener(app, self.http, infer=app.infer)
        await self.listener.start()

    def stop(self) -> None:
        self.run(self.listener.drain(0.5))
        self.run(self._end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end_tasks(self) -> None:
        """Lets batches of requests that were abandoned end."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def connect(self) -> socket.socket:
        """A plain socket to the server."""
        return socket.create_connection((HOST, self.http.port), timeout=10)


@contextmanager
def live_server(
    new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None, **http: Any
) -> Iterator[LiveServer]:
    """Starts a server with settings of `HttpConfig`, and stops it."""
    server = LiveServer(new_loop, **http)
    server.start()
    try:
        yield server
    finally:
        server.stop()
