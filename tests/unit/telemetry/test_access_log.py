from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
from time import time
from typing import Any

import pytest

from serve_app.log import EXTRA_FIELDS, LineHandler, rfc3339
from serve_app.telemetry import access_log as access_log_module
from serve_app.telemetry.access_line import LOGGER
from serve_app.telemetry.access_log import MAX_BUFFERED, MAX_KEPT, AccessLog
from tests.unit.telemetry.traces import trace

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class CountingStream(io.StringIO):
    """Counts its writes, which come from any thread."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.written = threading.Event()

    def write(self, text: str) -> int:
        count = super().write(text)
        self.writes += 1
        self.written.set()
        return count


@pytest.fixture
def stream() -> CountingStream:
    return CountingStream()


@pytest.fixture
def log(stream: CountingStream) -> AccessLog:
    return AccessLog(LineHandler("ingress", stream))


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().split("\n") if line]


async def test_a_line_says_everything_about_a_request(
    log: AccessLog, stream: CountingStream
) -> None:
    one = trace(request_id="id-1", transport="direct", traceparent=TRACEPARENT)
    log.append(one, 200, "ok", 0.0123456)
    assert stream.getvalue() == ""
    await log.flush()
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line.pop("pid") > 0
    assert line == {
        "level": "INFO",
        "logger": "serve_app.access",
        "message": "request",
        "process": "ingress",
        "action": "request",
        "request_id": "id-1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "model": "digits",
        "version": "2",
        "arm": "2",
        "protocol": "http",
        "transport": "direct",
        "status": 200,
        "code": "ok",
        "duration_ms": 12.346,
        "queue_ms": 1.5,
        "compute_ms": 4.0,
        "rows": 1,
        "batch_rows": 7,
    }


@pytest.mark.parametrize(
    "measured",
    [
        {},
        {"model": "", "version": "", "arm": "", "batch_rows": 0},
        {"version": "1", "fallback_from": "2"},
        {"transport": "handle", "traceparent": TRACEPARENT},
        {"model": 'm"\n{}', "version": "\u2028", "queue_s": 12345.678, "compute_s": 1e-9},
    ],
)
async def test_lines_are_those_of_the_formatter(
    log: AccessLog, stream: CountingStream, measured: dict[str, Any]
) -> None:
    before = time()
    log.append(trace(**measured), 404, "model_not_found", 0.5)
    await log.flush()
    fast = lines(stream)[0]
    extra = {name: fast[name] for name in EXTRA_FIELDS if name in fast}
    record = logging.makeLogRecord(
        {"name": LOGGER, "levelname": "INFO", "msg": "request", "created": before, **extra}
    )
    handler = LineHandler("ingress", io.StringIO())
    slow = json.loads(handler.format(record))
    assert list(fast) == list(slow)
    assert fast | {"timestamp": ""} == slow | {"timestamp": ""}


async def test_a_request_that_met_no_batch_has_no_batch_fields(
    log: AccessLog, stream: CountingStream
) -> None:
    log.append(trace(model="", version="", arm="", batch_rows=0), 404, "model_not_found", 0.5)
    await log.flush()
    missing = {"model", "version", "arm", "queue_ms", "compute_ms", "rows", "batch_rows"}
    assert missing.isdisjoint(lines(stream)[0])


async def test_the_time_is_that_of_the_request(
    log: AccessLog, stream: CountingStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for now in (1_700_000_000.25, 1_700_000_009.5):
        monkeypatch.setattr(access_log_module, "time", lambda now=now: now)
        log.append(trace(), 200, "ok", 0.0)
    await log.flush()
    times = [line["timestamp"] for line in lines(stream)]
    assert times == [rfc3339(1_700_000_000.25), rfc3339(1_700_000_009.5)]


async def test_a_line_is_a_copy(log: AccessLog, stream: CountingStream) -> None:
    # The batch of a request that timed out can come back after its line was noted.
    late = trace(batch_rows=0)
    log.append(late, 504, "deadline_exceeded", 1.0)
    late.batch_rows, late.request_id = 9, "changed"
    await log.flush()
    assert lines(stream)[0]["request_id"] == "id"
    assert "batch_rows" not in lines(stream)[0]


async def test_a_request_id_cannot_forge_a_line(log: AccessLog, stream: CountingStream) -> None:
    for request_id in ('x","status":200}\n{"a":"', "\udcff\x00"):
        log.append(trace(request_id=request_id), 500, "internal", 0.1)
    await log.flush()
    assert [line["request_id"] for line in lines(stream)] == [
        'x","status":200}\n{"a":"',
        "\\udcff\x00",
    ]


async def test_a_full_buffer_is_written_before_its_time(
    log: AccessLog, stream: CountingStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log_module, "INTERVAL_S", 3600.0)
    log.start()
    for number in range(MAX_BUFFERED):
        assert log.append(trace(request_id=str(number)), 200, "ok", 0.0)
    assert stream.writes == 0, "written on the event loop"
    assert await asyncio.to_thread(stream.written.wait, 10)
    await log.close()
    assert [int(line["request_id"]) for line in lines(stream)] == list(range(MAX_BUFFERED))


async def test_a_writer_that_is_behind_holds_nothing_up(
    log: AccessLog, stream: CountingStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log_module, "INTERVAL_S", 0.0)
    entered, go_on = threading.Event(), threading.Event()
    write = stream.write

    def slow_write(text: str) -> int:
        entered.set()
        assert go_on.wait(30)
        return write(text)

    monkeypatch.setattr(stream, "write", slow_write)
    log.start()
    log.append(trace(request_id="first"), 200, "ok", 0.0)
    assert await asyncio.to_thread(entered.wait, 10)
    # The thread holds the handler's lock now: nothing below may want it.
    kept = [log.append(trace(), 200, "ok", 0.0) for _ in range(MAX_KEPT + 7)]
    await asyncio.sleep(0.01)
    assert (kept.count(True), kept.count(False)) == (MAX_KEPT, 7)
    go_on.set()
    await log.close()
    assert len(lines(stream)) == MAX_KEPT + 1


async def test_a_fault_loses_its_lines_and_no_others(
    log: AccessLog,
    stream: CountingStream,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(access_log_module, "INTERVAL_S", 0.0)
    write = LineHandler.write
    failures = [RuntimeError("cannot start new thread"), None]

    def broken(handler: LineHandler, text: str) -> None:
        failure = failures.pop(0)
        if failure is not None:
            raise failure
        write(handler, text)

    monkeypatch.setattr(LineHandler, "write", broken)
    log.start()
    log.append(trace(request_id="lost"), 200, "ok", 0.0)
    for _ in range(5000):
        if len(failures) == 1:
            break
        await asyncio.sleep(0.001)
    log.append(trace(request_id="kept"), 200, "ok", 0.0)
    assert await asyncio.to_thread(stream.written.wait, 10)
    await log.close()
    assert [line["request_id"] for line in lines(stream)] == ["kept"]
    assert "cannot write the access log" in caplog.text


async def test_lines_are_written_together_by_a_task(
    log: AccessLog, stream: CountingStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log_module, "INTERVAL_S", 0.01)
    log.start()
    for number in range(1000):
        log.append(trace(request_id=str(number)), 200, "ok", 0.0)
    assert await asyncio.to_thread(stream.written.wait, 10)
    assert [int(line["request_id"]) for line in lines(stream)] == list(range(1000))
    assert stream.writes == 1
    await log.close()


async def test_nothing_is_lost_or_doubled_by_an_orderly_close(
    stream: CountingStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log_module, "INTERVAL_S", 0.0)
    total = 0
    for turns in range(12):
        # Closed at another step of the writing task each time.
        log = AccessLog(LineHandler("ingress", stream))
        log.start()
        for _ in range(700):
            log.append(trace(request_id=str(total)), 200, "ok", 0.0)
            total += 1
        for _ in range(turns):
            await asyncio.sleep(0)
        await log.close()
        await log.close()
    written = sorted(int(line["request_id"]) for line in lines(stream))
    assert written == list(range(total))


async def test_a_stream_that_is_gone_stops_nothing(
    log: AccessLog, stream: CountingStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log_module, "INTERVAL_S", 0.0)
    stream.close()
    log.start()
    for _ in range(20):
        log.append(trace(), 200, "ok", 0.0)
        await asyncio.sleep(0.001)
    await log.close()
