"""Scaling on a real cluster: more replicas for a step of load, none when nobody asks, and back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from serve_app.channel.socket_path import socket_folder
from tests.integration.cluster import Cluster
from tests.integration.load import Load
from tests.integration.test_channel import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(280)]

VERSION = "models.echo.versions.1"
SLEEPER = [
    f"{VERSION}.replicas={{min: 0, max: 1, downscale_delay_s: 1}}",
    f"{VERSION}.timeouts.request_s=60",
]


@pytest.fixture
def as_it_was(cluster: Cluster) -> Iterator[None]:
    """Applies the plain settings again after a test."""
    yield
    cluster.run("up")


def echo(report: dict[str, Any], version: str = "1") -> dict[str, Any]:
    """One version of the echo model in a report of `status`."""
    (model,) = [each for each in report["models"] if each["model"] == "echo"]
    found: dict[str, Any]
    (found,) = [each for each in model["versions"] if each["version"] == version]
    return found


async def ask(cluster: Cluster, values: Sequence[int], **headers: str) -> list[httpx.Response]:
    """Sends one request for each value, all at once."""
    bodies = [
        {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "INT64", "data": [value]}]}
        for value in values
    ]
    async with httpx.AsyncClient(timeout=90, headers=headers) as client:
        url = f"http://{cluster.http}/v2/models/echo/infer"
        return await asyncio.gather(*[client.post(url, json=body) for body in bodies])


def right(answers: Sequence[httpx.Response], values: Sequence[int]) -> bool:
    assert [each.status_code for each in answers] == [200] * len(values), answers[0].text
    return [each.json()["outputs"][0]["data"] for each in answers] == [[value] for value in values]


async def asleep(cluster: Cluster) -> None:
    await until(lambda: not cluster.replicas("echo@1"), within_s=60)


async def test_a_step_of_load_gets_replicas_within_seconds(
    cluster: Cluster, as_it_was: None
) -> None:
    replicas = f"{VERSION}.replicas={{min: 1, max: 4, downscale_delay_s: 2}}"
    settings = [replicas, f"{VERSION}.predictor.delay_s=0.1"]
    await asyncio.to_thread(cluster.run, "up", overrides=settings)
    await until(lambda: len(cluster.replicas("echo@1")) == 1, within_s=60)
    (first,) = cluster.replicas("echo@1")
    async with Load(cluster.http, rate=4) as quiet:
        await asyncio.sleep(4)
        assert [each.pid for each in cluster.replicas("echo@1")] == [first.pid]
    stepped = time.time()
    async with Load(cluster.http, rate=32) as load:
        await until(lambda: len(cluster.replicas("echo@1")) > 1, within_s=30)
        started = min(p.create_time() for p in cluster.replicas("echo@1") if p.pid != first.pid)
        deadline = time.monotonic() + 40
        while echo(report := await asyncio.to_thread(cluster.status_quietly))["replicas"] < 2:
            assert time.monotonic() < deadline, report
    print(f"started after {started - stepped:.1f} s, serves after {time.time() - stepped:.1f} s")
    assert report["ready"]
    for answers in (quiet.answers, load.answers):
        assert not answers.wrong
        assert answers.right == answers.sent


async def test_none_when_nobody_asks_and_the_first_requests_wait_for_one(
    cluster: Cluster, as_it_was: None
) -> None:
    out = (await asyncio.to_thread(cluster.run, "up", overrides=SLEEPER)).stdout
    assert "Serving after" in out
    await asleep(cluster)
    await until(lambda: echo(cluster.status_quietly()).get("idle", False), within_s=20)
    report = cluster.status()
    assert report["ready"]
    assert "idle (0)" in cluster.run("status").stdout
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://{cluster.http}/v2/models/echo/ready")
    assert answer.json()["ready"] is True
    # What sleeps is as it should be: there is nothing to wait for.
    await asyncio.to_thread(cluster.run, "up", overrides=SLEEPER)
    assert not cluster.replicas("echo@1")

    (hasty,) = await ask(cluster, [1], **{"x-request-timeout-ms": "200"})
    assert (hasty.status_code, hasty.json()["code"]) == (504, "deadline_exceeded")
    await until(lambda: len(cluster.replicas("echo@1")) == 1, within_s=30)  # it comes all the same
    await asleep(cluster)

    began = time.monotonic()
    values = list(range(20))
    assert right(await ask(cluster, values), values)
    print(f"20 first requests answered after {time.monotonic() - began:.1f} s")
    assert right(await ask(cluster, values), values)


async def test_requests_that_meet_the_last_replica_on_its_way_out_are_answered(
    cluster: Cluster, as_it_was: None
) -> None:
    await asyncio.to_thread(cluster.run, "up", overrides=SLEEPER)
    values = list(range(10))
    for pause_s in (0.0, 0.05, 0.3):
        assert right(await ask(cluster, values), values)
        replica = max(cluster.replicas("echo@1"), key=psutil.Process.create_time)
        (path,) = socket_folder().glob(f"{replica.pid}-*.sock")
        await asyncio.to_thread(wait_for_its_drain, path)
        await asyncio.sleep(pause_s)
        assert right(await ask(cluster, values), values)


def wait_for_its_drain(path: Path) -> None:
    """Waits until a replica takes its socket away, which is where it begins to drain."""
    deadline = time.monotonic() + 60
    while path.exists():
        assert time.monotonic() < deadline, "it does not sleep"
        time.sleep(0.002)


async def test_a_load_that_fails_on_waking_is_said_and_forgotten_when_it_is_mended(
    cluster: Cluster, as_it_was: None, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"weights")
    settings = [*SLEEPER, f"+{VERSION}.artifact.uri={weights}"]
    await asyncio.to_thread(cluster.run, "up", overrides=settings)
    await asleep(cluster)
    weights.unlink()
    began = time.monotonic()
    answers = await ask(cluster, [1, 2, 3])
    print(f"told after {time.monotonic() - began:.1f} s")
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready"), answer.text
        assert str(tmp_path) not in answer.text
    report = echo(cluster.status_quietly())
    assert not report["ready"]
    assert "weights.bin" in report["message"]
    weights.write_bytes(b"weights")
    deadline = time.monotonic() + 60
    while (answers := await ask(cluster, [7]))[0].status_code == 503:
        assert time.monotonic() < deadline, answers[0].text
        await asyncio.sleep(0.5)
    assert right(answers, [7])


def test_fractions_of_a_gpu_are_shared_and_a_replica_too_many_waits(tmp_path: Path) -> None:
    """A GPU that only Ray believes in: two halves of it can be had, a third cannot."""
    cluster = Cluster(
        tmp_path,
        overrides=[
            "model=[echo]",
            "cluster.num_gpus=1",
            f"{VERSION}.resources.num_gpus=0.5",
            f"{VERSION}.replicas={{min: 1, max: 3, upscale_delay_s: 0}}",
            f"{VERSION}.predictor.delay_s=0.1",
            f"{VERSION}.batching.max_rows=1",
        ],
    )
    try:
        cluster.run("up")
        report = asyncio.run(overloaded(cluster))
        assert len(cluster.replicas("echo@1")) == 2
    finally:
        cluster.run("down", check=False)
    assert report["ready"]
    assert (echo(report)["replicas"], echo(report)["replicas_target"]) == (2, 3)
    assert echo(report)["ready"]


async def overloaded(cluster: Cluster) -> dict[str, Any]:
    """The report once a third replica waits, under a load for three."""
    async with Load(cluster.http, rate=17) as load:
        async with asyncio.timeout(90):
            while True:
                report = await asyncio.to_thread(cluster.status_quietly)
                if "1 replica waits for resources" in echo(report)["message"]:
                    break
    assert not load.answers.wrong
    return report
