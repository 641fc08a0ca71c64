"""The direct channel on a real cluster: taken when it can be, and nothing lost when it cannot."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from serve_app.channel.gateway import SILENCE_S
from serve_app.channel.socket_path import socket_folder
from tests.integration.cluster import Cluster
from tests.integration.load import Load

pytestmark = [pytest.mark.ray, pytest.mark.timeout(280)]


@pytest.fixture(autouse=True)
def as_it_was(cluster: Cluster) -> Iterator[None]:
    """Applies the plain settings again after each test; changes nothing where nothing changed."""
    yield
    cluster.run("up")


def batches(cluster: Cluster) -> dict[str, float]:
    """Batches of the echo model so far, by transport."""
    found: dict[str, float] = {}
    for line in httpx.get(cluster.metrics).text.splitlines():
        if line.startswith("serve_app_batches_total{") and 'model_name="echo"' in line:
            transport = line.partition('transport="')[2].partition('"')[0]
            found[transport] = found.get(transport, 0.0) + float(line.rpartition(" ")[2])
    return found


def batches_when_told(cluster: Cluster, before: dict[str, float]) -> dict[str, float]:
    """The same, once it differs: an ingress tells its siblings of its numbers once a second."""
    deadline = time.monotonic() + 5
    while (after := batches(cluster)) == before:
        assert time.monotonic() < deadline, "no batch was counted"
        time.sleep(0.1)
    return after


def last_access_line(cluster: Cluster, request_id: str) -> dict[str, object]:
    """The access log's line of a request; it is written within a fraction of a second."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        for file in (cluster.home / "logs").glob("ingress-*.log"):
            for line in file.read_text().splitlines():
                if request_id in line:
                    found: dict[str, object] = json.loads(line)
                    return found
        time.sleep(0.1)
    raise AssertionError(f"no line for {request_id}")


def ask(cluster: Cluster, request_id: str, **headers: str) -> httpx.Response:
    tensor = {"name": "x", "shape": [1, 1], "datatype": "INT64", "data": [5]}
    return httpx.post(
        f"http://{cluster.http}/v2/models/echo/infer",
        json={"inputs": [tensor]},
        headers={"x-request-id": request_id, **headers},
    )


def test_batches_take_the_channel_and_metrics_and_logs_say_so(cluster: Cluster) -> None:
    before = batches(cluster)
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    answer = ask(cluster, "by-channel-1", traceparent=f"00-{trace_id}-00f067aa0ba902b7-01")
    assert answer.json()["outputs"][0]["data"] == [5]
    line = last_access_line(cluster, "by-channel-1")
    assert line["transport"] == "direct"
    assert line["trace_id"] == trace_id
    after = batches_when_told(cluster, before)
    assert after["direct"] > before.get("direct", 0.0)
    assert after.get("handle", 0.0) == before.get("handle", 0.0)


def test_the_handle_can_be_forced(cluster: Cluster) -> None:
    cluster.run("up", overrides=["cluster.transport=handle"])
    before = batches(cluster)
    assert ask(cluster, "by-handle-1").json()["outputs"][0]["data"] == [5]
    assert last_access_line(cluster, "by-handle-1")["transport"] == "handle"
    after = batches_when_told(cluster, before)
    assert after["handle"] > before.get("handle", 0.0)
    assert after.get("direct", 0.0) == before.get("direct", 0.0)


def test_sockets_are_the_users_own(cluster: Cluster) -> None:
    folder = socket_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    owners = {int(path.name.partition("-")[0]): path for path in folder.glob("*.sock")}
    replicas = {each.pid for each in cluster.replicas("ModelReplica")}
    assert replicas <= owners.keys()
    assert all(owners[pid].stat().st_mode & 0o777 == 0o600 for pid in replicas)


def sockets_of(cluster: Cluster, title: str) -> list[Path]:
    pids = {each.pid for each in cluster.replicas(title)}
    return [
        path for path in socket_folder().glob("*.sock") if int(path.name.partition("-")[0]) in pids
    ]


async def test_a_deleted_socket_costs_nothing(cluster: Cluster) -> None:
    async with Load(cluster.http, rate=80) as load:
        await asyncio.sleep(1)
        for path in sockets_of(cluster, "echo@1"):
            path.unlink()
        # New ingresses cannot connect any more, and go by handle.
        for process in cluster.replicas("Ingress")[:1]:
            process.kill()
        await asyncio.sleep(6)
    answers = load.answers
    assert not answers.wrong
    assert not answers.refused
    assert answers.right + answers.broken == answers.sent
    # What a restart brings has sockets again.
    for process in cluster.replicas("echo@1"):
        process.kill()
    await until(lambda: len(sockets_of(cluster, "echo@1")) == 2, within_s=60)
    await until(lambda: len(cluster.replicas("Ingress")) == 2, within_s=60)


async def test_a_replica_that_stands_still_is_left_alone(cluster: Cluster) -> None:
    victim = cluster.replicas("echo@1")[0]
    async with Load(cluster.http, rate=80) as load:
        await asyncio.sleep(1)
        victim.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(SILENCE_S + 2)
            load.answers.latencies_s.clear()
            await asyncio.sleep(2)
        finally:
            victim.send_signal(signal.SIGCONT)
    answers = load.answers
    assert not answers.wrong
    assert not answers.refused
    assert answers.broken == 0
    assert answers.right == answers.sent  # what it held was computed by the other one
    assert max(answers.latencies_s) < 1.0


async def test_scaling_down_under_64_connections_loses_nothing(cluster: Cluster) -> None:
    one = ["models.echo.versions.1.replicas.min=1", "models.echo.versions.1.replicas.max=1"]
    before = {each.pid for each in cluster.replicas("echo@1")}
    async with asyncio.timeout(200), Load(cluster.http, rate=300) as load:
        await asyncio.sleep(1)
        await asyncio.to_thread(cluster.run, "up", overrides=one)
        await until(lambda: len(cluster.replicas("echo@1")) == 1, within_s=60)
        await asyncio.sleep(1)
    assert len(before) == 2
    answers = load.answers
    assert not answers.wrong
    assert not answers.refused
    assert answers.broken == 0
    assert answers.right == answers.sent


@pytest.mark.parametrize("transport", ["auto", "handle"])
async def test_load_adds_replicas_and_quiet_removes_them(cluster: Cluster, transport: str) -> None:
    version = "models.echo.versions.1"
    scaling = [
        f"cluster.transport={transport}",
        f"{version}.predictor.delay_s=0.1",
        *(f"{version}.replicas.min=1", f"{version}.replicas.max=2"),
        *(f"{version}.replicas.upscale_delay_s=0", f"{version}.replicas.downscale_delay_s=2"),
    ]
    await asyncio.to_thread(cluster.run, "up", overrides=scaling)
    await until(lambda: len(cluster.replicas("echo@1")) == 1, within_s=60)
    async with Load(cluster.http, rate=60) as load:
        await until(lambda: len(cluster.replicas("echo@1")) == 2, within_s=40)
    assert not load.answers.wrong
    assert load.answers.right == load.answers.sent
    await until(lambda: len(cluster.replicas("echo@1")) == 1, within_s=40)


async def until(condition: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s")
        await asyncio.sleep(0.25)
