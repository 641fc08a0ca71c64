"""Both ends of a channel, for faults: replicas that misbehave, and ingresses that do."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import numpy as np

from serve_app.channel.connection import ChannelConnection
from serve_app.channel.frame import Frame, call_frame, greeting_frame
from serve_app.channel.gateway import DirectGateway
from serve_app.channel.stream import FrameReader
from serve_app.config.model import PredictorConfig
from serve_app.domain.inference import BatchResult, InferenceBatch, VersionKey
from serve_app.domain.routing import Endpoint
from serve_app.domain.tensor import TensorSpec
from tests.contract.channel_replica import NODE, ChannelReplica, route
from tests.unit.channel.strategies import joined

KEY = VersionKey("echo", "1")
SPECS = (TensorSpec(name="x", datatype="INT64", shape=(-1, -1)),)
ECHO = "serve_app.predictors.echo.EchoModel"

Behaviour = Callable[[Reader, Writer], Awaitable[None]]


def batch(
    value: int = 7, rows: int = 1, columns: int = 1, budget_s: float = 60.0
) -> InferenceBatch:
    inputs = {"x": np.full((rows, columns), value, np.int64)}
    return InferenceBatch(inputs, (rows,), (budget_s,), ("request",), backlog=0)


def value_of(result: BatchResult) -> int:
    return int(result.outputs["x"].flat[0])


def endpoint(path: Path, capacity: int = 2) -> Endpoint:
    return Endpoint(NODE, str(path), path.stem, capacity)


async def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Waits for what nothing tells of."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(0.01)


def echo(**arguments: object) -> PredictorConfig:
    return PredictorConfig.model_validate({"_target_": ECHO, **arguments})


@contextlib.asynccontextmanager
async def replica(path: Path, slots: int = 2, **arguments: object) -> AsyncIterator[ChannelReplica]:
    """A real one, in this process."""
    found = ChannelReplica(path, echo(**arguments), SPECS, slots)
    try:
        yield found
    finally:
        await found.stop()


class Handles:
    """The fallback: answers -1, and counts."""

    def __init__(self) -> None:
        self.calls = self.wakes = 0

    async def call(self, key: VersionKey, batch: InferenceBatch, timeout_s: float) -> BatchResult:
        self.calls += 1
        return BatchResult({"x": np.full((1, 1), -1, np.int64)}, {}, 0.0, "handle")

    async def wake(self, key: VersionKey) -> None:
        self.wakes += 1


@contextlib.asynccontextmanager
async def gateway(
    *endpoints: Endpoint, replicas: int | None = None, ingresses: int = 1
) -> AsyncIterator[tuple[DirectGateway, Handles]]:
    """One that has tried all its endpoints."""
    handles = Handles()
    found = DirectGateway(handles, NODE)
    found.follow([route(KEY, *endpoints, replicas=replicas)], ingresses)
    await found.ready(5.0)
    try:
        yield found, handles
    finally:
        await found.close()


async def connected_again(subject: DirectGateway) -> None:
    """Waits until its one endpoint takes calls."""
    (link,) = subject._pools[KEY].links.values()
    await until(lambda: link.connection is not None and link.connection.usable)
    assert value_of(await subject.call(KEY, batch(7), 5.0)) == 7


@contextlib.asynccontextmanager
async def connected(to: Endpoint) -> AsyncIterator[ChannelConnection]:
    connection = ChannelConnection(to)
    await connection.open()
    try:
        yield connection
    finally:
        connection.abort()
        await connection.gone


@contextlib.asynccontextmanager
async def pretender(path: Path, behaviour: Behaviour) -> AsyncIterator[Endpoint]:
    """A replica that does with each connection what the test says, then closes it."""

    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: Reader, writer: Writer) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            try:
                await behaviour(reader, writer)
            finally:
                writer.close()
                await writer.wait_closed()

    def welcome(reader: Reader, writer: Writer) -> None:
        serving.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_unix_server(welcome, path)
    try:
        yield endpoint(path)
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


def greets(name: str, then: Behaviour | None = None) -> Behaviour:
    """Greets, waits for a call, does as it is told, and stays."""

    async def behaviour(reader: Reader, writer: Writer) -> None:
        writer.writelines(greeting_frame(name, shares_memory=False))
        await reader.readexactly(16)
        if then is not None:
            await then(reader, writer)
        await asyncio.sleep(60)

    return behaviour


class RawIngress:
    """The other end of a replica's socket, which may write anything."""

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self.reader, self.writer = reader, writer
        self._frames = FrameReader()

    async def ended(self, timeout_s: float = 5.0) -> list[Frame]:
        """The frames that came until the replica closed the connection."""
        found: list[Frame] = []
        async with asyncio.timeout(timeout_s):
            with contextlib.suppress(ConnectionResetError):
                while data := await self.reader.read(64 * 1024):
                    self._frames.space()[: len(data)] = data
                    found += self._frames.received(len(data))
        return found

    def close(self) -> None:
        self.writer.close()


async def raw_ingress(to: Endpoint) -> RawIngress:
    return RawIngress(*await asyncio.open_unix_connection(to.path))


def call_bytes(number: int = 1, value: int = 7) -> bytes:
    return joined(call_frame(number, batch(value), 0.0)[0])


@contextlib.asynccontextmanager
async def replica_process(
    path: Path, delay_s: float = 0.0
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A replica in a process of its own, which may be killed."""
    module = "tests.unit.channel.replica_process"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, str(path), str(delay_s), stdout=asyncio.subprocess.PIPE
    )
    if process.stdout is None:
        raise AssertionError("a pipe was asked for")
    try:
        async with asyncio.timeout(30):
            if await process.stdout.readline() != b"ready\n":
                raise AssertionError("the replica did not start")
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
