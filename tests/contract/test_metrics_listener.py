"""The metrics port: the listener of the HTTP port around what Prometheus scrapes."""

from __future__ import annotations

import asyncio
import io
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from serve_app.config.cluster import LogConfig
from serve_app.config.listener import MetricsConfig
from serve_app.errors import ClusterError
from serve_app.http.listener import HttpListener
from serve_app.log import LineHandler
from serve_app.telemetry.recorder import Recorder
from tests.contract.live_http import HOST, free_port


@pytest.fixture
def metrics() -> MetricsConfig:
    return MetricsConfig(host=HOST, port=free_port())


@pytest.fixture
async def listener(metrics: MetricsConfig, tmp_path: Path) -> AsyncIterator[HttpListener]:
    handler = LineHandler("ingress", io.StringIO())
    recorder = Recorder(metrics, LogConfig(), tmp_path / "metrics", handler)
    await recorder.start()
    result = HttpListener(recorder.scrape_app, metrics.listener(), "metrics")
    await result.start()
    yield result
    await result.drain(0.2)
    await recorder.close()


@pytest.fixture
async def client(metrics: MetricsConfig) -> AsyncIterator[httpx.AsyncClient]:
    url = f"http://{metrics.host}:{metrics.port}"
    async with httpx.AsyncClient(base_url=url, trust_env=False, verify=False) as each:
        yield each


async def test_scrapes_share_a_connection(
    listener: HttpListener, client: httpx.AsyncClient
) -> None:
    for _ in range(3):
        response = await client.get("/metrics")
        assert response.status_code == 200
        assert "serve_app_ingress_processes 1.0" in response.text
        assert "server" not in response.headers
    assert listener.open_connections == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/metrics"), ("HEAD", "/metrics"), ("GET", "/"), ("GET", "/v2/health/live")],
)
async def test_nothing_else_is_there(
    listener: HttpListener, client: httpx.AsyncClient, method: str, path: str
) -> None:
    assert (await client.request(method, path)).status_code == 404


async def test_a_large_body_is_not_read(listener: HttpListener, client: httpx.AsyncClient) -> None:
    response = await client.post("/metrics", content=b"x" * 1_000_000)
    assert response.status_code in (404, 503)


async def test_connections_are_bounded(
    listener: HttpListener, metrics: MetricsConfig, client: httpx.AsyncClient
) -> None:
    held = [await asyncio.open_connection(HOST, metrics.port) for _ in range(64)]
    assert (await client.get("/metrics")).status_code == 503
    for _, writer in held:
        writer.close()
        await writer.wait_closed()
    for _ in range(500):
        if not listener.open_connections:
            break
        await asyncio.sleep(0.01)
    assert (await client.get("/metrics")).status_code == 200


async def test_a_slow_head_is_cut(metrics: MetricsConfig, tmp_path: Path) -> None:
    http = metrics.listener().model_copy(update={"header_timeout_s": 0.2})
    recorder = Recorder(metrics, LogConfig(), tmp_path, LineHandler("x", io.StringIO()))
    listener = HttpListener(recorder.scrape_app, http, "metrics")
    await listener.start()
    reader, writer = await asyncio.open_connection(HOST, metrics.port)
    writer.write(b"GET /metrics HTTP/1.1\r\nA: ")
    assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
    writer.close()
    await writer.wait_closed()
    await listener.drain(0.2)


async def test_processes_share_the_port_and_signals_are_left_alone(
    listener: HttpListener, metrics: MetricsConfig, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    recorder = Recorder(metrics, LogConfig(), tmp_path, LineHandler("x", io.StringIO()))
    sibling = HttpListener(recorder.scrape_app, metrics.listener(), "metrics")
    await sibling.start()
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before
    await sibling.drain(0.2)
    assert (await client.get("/metrics")).status_code == 200


async def test_a_port_that_is_taken_is_named_by_its_setting(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        metrics = MetricsConfig(host=HOST, port=port)
        recorder = Recorder(metrics, LogConfig(), tmp_path, LineHandler("x", io.StringIO()))
        listener = HttpListener(recorder.scrape_app, metrics.listener(), "metrics")
        with pytest.raises(ClusterError, match=rf"{port}.*metrics\.port="):
            await listener.start()
