from __future__ import annotations

import asyncio
import io
import json
import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serve_app.config.cluster import LogConfig
from serve_app.config.ingress import RequestLimits
from serve_app.config.listener import MetricsConfig
from serve_app.dataplane import DataPlane
from serve_app.domain.inference import VersionKey
from serve_app.errors import ClusterError
from serve_app.log import LineHandler
from serve_app.telemetry import access_log as access_log_module
from serve_app.telemetry import recorder as recorder_module
from serve_app.telemetry.node import NodeMetrics, Snapshot
from serve_app.telemetry.recorder import Recorder
from serve_app.telemetry.sink import NullTelemetry, Telemetry
from serve_app.testing import FakeGateway, RecordingTelemetry, route_table
from tests.unit.telemetry.traces import result, trace

REQUESTS = "serve_app_request_duration_seconds_count"


@pytest.fixture(autouse=True)
def _at_level_info() -> Iterator[None]:
    logger = logging.getLogger("serve_app")
    before = logger.level
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(before)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
async def recorder(tmp_path: Path, stream: io.StringIO) -> AsyncIterator[Recorder]:
    result = Recorder(MetricsConfig(), LogConfig(), tmp_path / "metrics", handler(stream))
    await result.start()
    yield result
    await result.close()


@pytest.fixture
async def client(recorder: Recorder) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(recorder.scrape_app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as each:
        yield each


def handler(stream: io.StringIO) -> LineHandler:
    return LineHandler("ingress", stream)


def values(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *[sample.labels[key] for key in sorted(sample.labels)]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def snapshots(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in folder.glob("[0-9]*.json")]


def test_every_telemetry_takes_the_same_call(tmp_path: Path, stream: io.StringIO) -> None:
    every: list[Telemetry] = [
        NullTelemetry(),
        RecordingTelemetry(),
        Recorder(MetricsConfig(), LogConfig(), tmp_path, handler(stream)),
    ]
    one = trace()
    for each in every:
        each.finish(one, 200, "ok")
    assert isinstance(every[1], RecordingTelemetry)
    assert every[1].finished == [(one, 200, "ok")]


async def test_a_request_is_counted_and_logged(
    recorder: Recorder, client: httpx.AsyncClient, stream: io.StringIO
) -> None:
    recorder.finish(trace(request_id="id-1"), 503, "overloaded")
    recorder.observe_batch(VersionKey("digits", "2"), 7, result(transport="direct"))
    recorder.count_fallback(VersionKey("digits", "2"), "stuck")
    found = values((await client.get("/metrics")).text)
    assert found[REQUESTS, "overloaded", "digits", "2", "http"] == 1
    assert found["serve_app_batch_size_sum", "digits", "2"] == 7
    assert found["serve_app_batches_total", "digits", "2", "direct"] == 1
    assert found["serve_app_channel_fallbacks_total", "digits", "2", "stuck"] == 1
    await recorder.close()
    (line,) = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (line["request_id"], line["status"], line["code"]) == ("id-1", 503, "overloaded")


async def test_gauges_are_of_this_moment(recorder: Recorder, client: httpx.AsyncClient) -> None:
    plane = DataPlane(FakeGateway(), RequestLimits())
    recorder.watch(plane, lambda: 12)
    plane.update(route_table(revision=42))
    found = values((await client.get("/metrics")).text)
    assert found["serve_app_open_connections", str(os.getpid())] == 12
    assert found["serve_app_route_table_revision", str(os.getpid())] == 42
    assert found["serve_app_ingress_processes",] == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("POST", "/metrics"), ("GET", "/metrics/"), ("GET", "/metrics/../x"),
     ("DELETE", "/metrics"), ("GET", "/v2/models/digits/infer"), ("HEAD", "/metrics")],
)  # fmt: skip
async def test_nothing_else_is_there(
    recorder: Recorder, client: httpx.AsyncClient, method: str, path: str
) -> None:
    response = await client.request(method, path)
    assert response.status_code == 404
    assert "server" not in response.headers


async def test_a_query_and_a_strange_accept_do_no_harm(
    recorder: Recorder, client: httpx.AsyncClient
) -> None:
    headers = {b"accept": b"\xff\xfe;q=x,application/openmetrics-text;version=zero"}
    response = await client.get("/metrics?x=1", headers=headers)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")


async def test_openmetrics_for_those_who_ask(recorder: Recorder, client: httpx.AsyncClient) -> None:
    headers = {"accept": "application/openmetrics-text;version=1.0.0"}
    response = await client.get("/metrics", headers=headers)
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


async def test_a_folder_that_is_gone_is_said_and_survived(
    recorder: Recorder, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    (tmp_path / "metrics").rename(tmp_path / "away")
    response = await client.get("/metrics")
    assert response.status_code == 503
    assert str(tmp_path) not in response.text
    (tmp_path / "away").rename(tmp_path / "metrics")
    assert (await client.get("/metrics")).status_code == 200


async def test_a_folder_that_cannot_be_made_fails_the_start(
    tmp_path: Path, stream: io.StringIO
) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "metrics"
    recorder = Recorder(MetricsConfig(), LogConfig(), folder, handler(stream))
    with pytest.raises(ClusterError, match="metrics folder"):
        await recorder.start()
    await recorder.close()


async def test_metrics_can_be_off(tmp_path: Path, stream: io.StringIO) -> None:
    config = MetricsConfig(enabled=False)
    recorder = Recorder(config, LogConfig(), tmp_path / "metrics", handler(stream))
    await recorder.start()
    recorder.finish(trace(), 200, "ok")
    await recorder.close()
    assert not (tmp_path / "metrics").exists()
    assert len(stream.getvalue().splitlines()) == 1


@pytest.mark.parametrize(("access", "level"), [(False, logging.INFO), (True, logging.WARNING)])
async def test_the_access_log_can_be_off(
    tmp_path: Path, stream: io.StringIO, access: bool, level: int
) -> None:
    logging.getLogger("serve_app").setLevel(level)
    log = LogConfig(access=access)
    recorder = Recorder(MetricsConfig(), log, tmp_path, handler(stream))
    await recorder.start()
    recorder.finish(trace(), 200, "ok")
    await recorder.close()
    assert stream.getvalue() == ""


async def test_close_can_be_called_twice(recorder: Recorder) -> None:
    await recorder.close()
    await recorder.close()


async def test_what_was_counted_last_is_left_to_the_others(
    tmp_path: Path, stream: io.StringIO
) -> None:
    recorder = Recorder(MetricsConfig(), LogConfig(), tmp_path, handler(stream))
    await recorder.start()
    recorder.finish(trace(), 200, "ok")
    await recorder.close()
    (content,) = snapshots(tmp_path)
    assert content["gauges"] is None
    assert sum(content["histograms"]["serve_app_request_duration_seconds"][0][1]) == 1


async def test_numbers_reach_the_folder_without_a_scrape(
    tmp_path: Path, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "FLUSH_S", 0.01)
    recorder = Recorder(MetricsConfig(), LogConfig(), tmp_path, handler(stream))
    await recorder.start()
    recorder.observe_batch(VersionKey("digits", "2"), 1, result())
    for _ in range(500):
        await asyncio.sleep(0.01)
        if any(each["histograms"]["serve_app_batch_size"] for each in snapshots(tmp_path)):
            break
    else:
        pytest.fail("nothing was written")
    await recorder.close()


async def test_a_turn_that_fails_is_not_the_last(
    recorder: Recorder,
    tmp_path: Path,
    stream: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(recorder_module, "FLUSH_S", 0.01)
    write, calls = NodeMetrics.write, []

    def broken(node: NodeMetrics, snapshot: Snapshot) -> None:
        calls.append(snapshot)
        if len(calls) == 1:
            raise RuntimeError("cannot start new thread")
        write(node, snapshot)

    monkeypatch.setattr(NodeMetrics, "write", broken)
    other = Recorder(MetricsConfig(), LogConfig(), tmp_path / "other", handler(stream))
    await other.start()
    for _ in range(500):
        await asyncio.sleep(0.01)
        if snapshots(tmp_path / "other"):
            break
    else:
        pytest.fail("nothing was written")
    await other.close()
    assert "cannot leave the metrics" in caplog.text


async def test_an_exposition_that_fails_is_said_and_survived(
    recorder: Recorder, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(NodeMetrics, "totals", lambda _: 1 / 0)
        response = await client.get("/metrics")
        assert response.status_code == 503
        assert "Zero" not in response.text
    assert (await client.get("/metrics")).status_code == 200


async def test_lines_that_are_dropped_are_counted(
    recorder: Recorder, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log_module, "MAX_KEPT", 2)
    for _ in range(5):
        recorder.finish(trace(), 200, "ok")
    found = values((await client.get("/metrics")).text)
    assert found["serve_app_access_lines_dropped_total",] == 3
    assert found[REQUESTS, "ok", "digits", "2", "http"] == 5
