"""Infer requests on a connection: no task of their own, and nothing that a task gave is missing."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Mapping

import pytest

from serve_app.domain.inference import InferenceResult, VersionKey
from serve_app.domain.raw_tensor import Buffer
from serve_app.domain.tensor import Array
from serve_app.errors import Overloaded
from serve_app.http.v2.infer import InferTarget, _target, infer_path, infer_target
from serve_app.http.v2.infer_answer import AnswerForm, InferAnswers
from tests.unit.http.wire import BODY, INFER, Wire, head, request, turns

SLOW = b"/v2/models/slow/infer"


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (b"/v2/models/a/infer", ("a", None, b"")),
        (b"/v2/models/a/infer?b=c&d", ("a", None, b"b=c&d")),
        (b"/v2/models/A-z_0.9/versions/1.0/infer", ("A-z_0.9", "1.0", b"")),
        (
            b"/v2/models/%b/versions/%b/infer" % (b"m" * 128, b"v" * 128),
            ("m" * 128, "v" * 128, b""),
        ),
        (b"/v2/models/%b/infer" % (b"m" * 129), None),
        (b"/v2/models/%b/infer" % (b"m" * 60_000), None),
        (b"/v2/models/a b/infer", None),
        (b"/v2/models/%65cho/infer", None),
        (b"/v2/models/a\n/infer", None),
        (b"/v2/models/a/infer\n", None),
        (b"/v2/models/a/infer#b", None),
        (b"http://x/v2/models/a/infer", None),
        (b"/v2/models/a/versions/1/2/infer", None),
    ],
)
def test_infer_paths(path: bytes, target: InferTarget | None) -> None:
    assert infer_target(path) == target
    if target is not None:
        assert path.startswith(infer_path(InferTarget(*target)).encode())


def test_long_paths_are_not_remembered() -> None:
    before = _target.cache_info().currsize
    for number in range(50):
        infer_target(b"/v2/models/%d%b/infer" % (number, b"x" * 60_000))
    assert _target.cache_info().currsize == before


async def test_head_and_body_of_an_answer_leave_in_one_write_and_without_a_task() -> None:
    wire = Wire()
    tasks = asyncio.all_tasks()
    wire.send(request(BODY, INFER, b"x-request-id: r-1"))
    assert asyncio.all_tasks() == tasks
    assert wire.dataplane.in_flight == 1
    await turns()
    [answer] = wire.transport.writes
    top, _, body = answer.partition(b"\r\n\r\n")
    lines = top.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 200 OK"
    assert {line.split(b": ")[0] for line in lines[1:]} == {
        *(b"date", b"content-type", b"content-length", b"x-request-id", b"x-model-version")
    }
    assert b"x-request-id: r-1" in lines
    assert b"content-length: %d" % len(body) in lines
    assert wire.outcomes == [(200, "ok")]
    assert (wire.dataplane.in_flight, wire.state.buffered) == (0, 0)


@pytest.mark.parametrize(
    ("path", "header", "status", "code", "model"),
    [
        (b"/v2/models/no/infer", b"", 404, "model_not_found", ""),
        (b"/v2/models/echo/versions/9/infer", b"", 404, "version_not_found", "echo"),
        (INFER, b"content-type: text/html", 415, "unsupported_media_type", "echo"),
        (INFER, b"content-encoding: gzip", 415, "unsupported_media_type", "echo"),
        (INFER, b"x-request-timeout-ms: soon", 400, "malformed_request", "echo"),
        (INFER, b"x: y", 413, "payload_too_large", "echo"),
    ],
)
async def test_what_the_head_decides_is_refused_without_the_body(
    path: bytes, header: bytes, status: int, code: str, model: str
) -> None:
    wire = Wire(max_body_bytes=4096)
    length = 4097 if status == 413 else 10
    wire.send(head(length, path, b"Expect: 100-continue", *([header] if header else [])))
    assert wire.statuses == [status]
    assert b"connection: close" in wire.transport.written
    assert b"100 Continue" not in wire.transport.written
    assert wire.transport.ended
    [(trace, *outcome)] = wire.telemetry.finished
    assert outcome == [status, code]
    assert trace.model == model


async def test_a_draining_server_reads_no_body() -> None:
    wire = Wire()
    wire.dataplane.draining = True
    wire.send(head(10))
    assert wire.outcomes == [(503, "draining")]


async def test_a_refusal_of_what_came_whole_leaves_the_connection_open() -> None:
    wire = Wire()
    wire.send(request(BODY, b"/v2/models/no/infer"))
    assert wire.statuses == [404]
    assert b"connection: close" not in wire.transport.written
    wire.send(request())
    await turns()
    assert wire.statuses == [404, 200]


async def test_a_full_queue_is_refused_before_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire()

    def full(*_: object) -> None:
        raise Overloaded("the queue of this version is full")

    monkeypatch.setattr(wire.dataplane, "admit", full)
    wire.send(head(10))
    assert wire.outcomes == [(503, "overloaded")]
    assert b"retry-after: " in wire.transport.written


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        (b"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", False),
        (b"00-00000000000000000000000000000000-b7ad6b7169203331-01", False),
        (b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", False),
        (b"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", False),
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x", False),
        (b"", False),
    ],
)
async def test_trace_context_goes_with_the_request(given: bytes, kept: bool) -> None:
    wire = Wire()
    wire.send(request(BODY, INFER, b"traceparent: " + given))
    await turns()
    expected = given.decode() if kept else ""
    assert wire.telemetry.finished[0][0].traceparent == expected
    assert wire.gateway.batches[0][1].traceparents == ((expected,) if kept else ())


# Clients that leave


async def test_a_client_that_leaves_while_its_request_is_in_flight() -> None:
    wire = Wire()
    wire.gateway.delay_s = 60.0
    wire.send(request())
    await turns()
    assert (wire.dataplane.in_flight, len(wire.gateway.batches)) == (1, 1)
    wire.connection.connection_lost(None)
    await turns()
    [queue] = wire.dataplane.queues.values()
    assert (wire.dataplane.in_flight, queue.in_flight, wire.state.buffered) == (0, 0, 0)
    assert wire.outcomes == [(499, "client_gone")]
    assert wire.transport.writes == []


async def test_a_client_that_leaves_while_its_request_is_queued() -> None:
    first = Wire()
    first.gateway.delay_s = 60.0
    second = Wire()
    second.dataplane = first.dataplane
    second.app.infer.dataplane = first.dataplane
    first.send(request(BODY, SLOW))
    await turns()
    second.send(request(BODY, SLOW))
    await turns()
    [queue] = first.dataplane.queues.values()
    assert (queue.in_flight, queue.queued_rows, first.dataplane.in_flight) == (1, 1, 2)
    second.connection.connection_lost(None)
    assert (queue.in_flight, queue.queued_rows, first.dataplane.in_flight) == (1, 0, 1)
    assert second.outcomes == [(499, "client_gone")]
    first.connection.connection_lost(None)
    await turns()
    assert (queue.in_flight, first.dataplane.in_flight) == (0, 0)


async def test_a_client_that_leaves_inside_its_body_or_behind_another() -> None:
    wire = Wire()
    wire.gateway.delay_s = 60.0
    wire.send(request() + request() + request()[:-1])
    await turns()
    wire.connection.connection_lost(ConnectionResetError())
    assert (wire.dataplane.in_flight, wire.state.buffered) == (0, 0)
    assert wire.outcomes == [(499, "client_gone")]  # the others had not had their turn
    await turns()


# Pipelining and back-pressure


async def test_a_client_that_does_not_read_gets_no_next_answer() -> None:
    wire = Wire()
    wire.send(request(BODY, INFER, b"x-request-id: one"))
    await turns()
    wire.connection.pause_writing()
    wire.send(request() * 3)
    await turns()
    assert wire.statuses == [200]
    assert len(wire.gateway.batches) == 1
    wire.connection.resume_writing()
    await turns(30)
    assert wire.statuses == [200] * 4


async def test_back_pressure_between_pipelined_requests() -> None:
    wire = Wire()
    wire.send(request() * 3)
    wire.connection.pause_writing()
    await turns()
    assert wire.statuses == [200]  # its answer was on its way
    wire.connection.resume_writing()
    await turns(30)
    assert wire.statuses == [200] * 3


async def test_a_broken_request_behind_back_pressure_gets_no_answer_out_of_turn() -> None:
    wire = Wire()
    wire.send(request())
    await turns()
    wire.connection.pause_writing()
    wire.send(request() + b"broken\r\n\r\n")
    wire.connection.resume_writing()
    await turns()
    assert wire.statuses == [200]
    assert wire.transport.ended
    assert wire.state.buffered == 0


async def test_thousands_of_requests_that_are_refused_at_once() -> None:
    wire = Wire()
    wire.send(request() + request(b"", b"/v2/models/no/infer") * 3000)
    await turns()
    assert wire.statuses == [200] + [404] * 3000
    assert wire.transport.reading


async def test_order_is_kept_between_both_kinds_of_requests() -> None:
    wire = Wire()
    get = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    wire.send(request() + get + request() + get)
    for _ in range(200):
        await asyncio.sleep(0.001)
    parts = wire.transport.written.split(b"HTTP/1.1 200 OK")[1:]
    assert [b'"live"' in part for part in parts] == [False, True, False, True]


async def test_what_follows_a_request_that_ends_the_connection_is_not_served() -> None:
    wire = Wire()
    wire.send(request(b"{", INFER, b"Connection: close") + request())
    await turns()
    assert wire.statuses == [400]
    assert wire.transport.closing
    assert len(wire.gateway.batches) == 0


async def test_a_draining_listener_ends_the_connection_with_the_answer() -> None:
    wire = Wire()
    wire.send(request())
    wire.state.drain(1.0)
    await turns()
    assert b"connection: close" in wire.transport.written
    assert wire.transport.closing


# Faults of ours


async def test_an_answer_that_cannot_be_written_is_an_error_of_this_request_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = 0

    encode = InferAnswers.encode

    def explode(
        self: InferAnswers, result: InferenceResult, form: AnswerForm
    ) -> tuple[bytes, int, list[Buffer]]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("secret")
        return encode(self, result, form)

    monkeypatch.setattr(InferAnswers, "encode", explode)
    wires = [Wire(), Wire()]
    for wire in wires:
        wire.app.infer.dataplane = wires[0].dataplane
        wire.send(request())
    await turns()
    assert [wire.statuses for wire in wires] == [[500], [200]]
    assert b"secret" not in wires[0].transport.written
    assert "secret" in caplog.text


async def test_a_transport_that_fails_hurts_no_other_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wires = [Wire(), Wire()]

    def explode(_: object) -> None:
        raise RuntimeError("no more")

    monkeypatch.setattr(wires[0].transport, "write", explode)
    for wire in wires:
        wire.app.infer.dataplane = wires[0].dataplane
        wire.send(request())
    await turns()
    assert wires[0].transport.closing
    assert wires[1].statuses == [200]
    assert "no more" in caplog.text


async def test_a_model_that_fails() -> None:
    wire = Wire()

    def explode(_key: VersionKey, _inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        raise RuntimeError("secret")

    wire.gateway.compute = explode
    wire.send(request())
    await turns()
    assert wire.outcomes == [(500, "internal")]
    assert b"x-model-version: 1" in wire.transport.written


async def test_a_request_is_gone_without_the_garbage_collector() -> None:
    wire = Wire()
    gone: list[weakref.ref[Array]] = []

    def compute(_key: VersionKey, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        gone.append(weakref.ref(inputs["x"]))
        return {"x": inputs["x"].copy()}

    wire.gateway.compute = compute
    gc.disable()
    try:
        wire.send(request())
        await turns()
        wire.gateway.batches.clear()
        wire.send(request())
        await turns()
        assert gone[0]() is None
    finally:
        gc.enable()
