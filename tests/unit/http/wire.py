"""A connection over a transport that only remembers what it was told, around fakes."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from serve_app.config.ingress import RequestLimits
from serve_app.config.listener import HttpConfig
from serve_app.dataplane import DataPlane
from serve_app.domain.batching_policy import BatchingPolicy
from serve_app.domain.tensor import TensorSpec
from serve_app.http.app import create_app
from serve_app.http.body_intake import BodyIntake
from serve_app.http.connection import HttpConnection
from serve_app.http.listener_state import ListenerState
from serve_app.testing import FakeGateway, RecordingTelemetry, model_route, route_table

INFER = b"/v2/models/echo/infer"
BODY = b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}'


class FakeTransport(asyncio.Transport):
    """Takes everything; reports back-pressure only when the test says so."""

    def __init__(self, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.writes: list[bytes] = []
        self.reading = True
        self.ended = False
        self.closing = False

    @property
    def written(self) -> bytes:
        return b"".join(self.writes)

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol


class Wire:
    """One client on one connection."""

    def __init__(self, **http: Any) -> None:
        self.http = HttpConfig(**http)
        self.gateway = FakeGateway()
        self.telemetry = RecordingTelemetry()
        limits = RequestLimits()
        self.dataplane = DataPlane(self.gateway, limits)
        self.dataplane.update(
            route_table(
                model_route("echo", replicas={"3": 0}),
                model_route(
                    "raw", inputs=(TensorSpec(name="x", datatype="UINT8", shape=(-1, -1)),)
                ),
                model_route(
                    "slow", batching=BatchingPolicy(max_rows=1, slots_per_replica=1), timeout_s=60.0
                ),
            )
        )
        self.app = create_app(self.dataplane, self.http, limits, self.telemetry)
        self.state = ListenerState(self.http)
        self.connection = HttpConnection(self.state, self.app, self.app.infer)
        self.transport = FakeTransport(self.connection)
        self.connection.connection_made(self.transport)

    def send(self, data: bytes) -> None:
        """Delivers bytes as a transport does, to whichever kind of protocol it has."""
        while data:
            protocol = self.transport.protocol
            if isinstance(protocol, BodyIntake):
                room = protocol.get_buffer(-1)
                size = min(len(room), len(data))
                room[:size] = data[:size]
                protocol.buffer_updated(size)
                data = data[size:]
            else:
                cast("asyncio.Protocol", protocol).data_received(data)
                return

    @property
    def direct(self) -> bool:
        """Whether a body goes past the parser."""
        return isinstance(self.transport.protocol, BodyIntake)

    @property
    def statuses(self) -> list[int]:
        """Of all responses so far; bodies here hold no such line."""
        lines = self.transport.written.split(b"HTTP/1.1 ")[1:]
        return [int(line[:3]) for line in lines]

    @property
    def outcomes(self) -> list[tuple[int, str]]:
        return [(status, code) for _, status, code in self.telemetry.finished]


def request(body: bytes = BODY, path: bytes = INFER, *headers: bytes) -> bytes:
    """A whole request."""
    return head(len(body), path, *headers) + body


def head(length: int, path: bytes = INFER, *headers: bytes) -> bytes:
    """The head of a request whose body has a known length."""
    lines = [b"POST %b HTTP/1.1" % path, b"Host: x", b"Content-Length: %d" % length, *headers]
    return b"\r\n".join([*lines, b"", b""])


async def turns(count: int = 8) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
