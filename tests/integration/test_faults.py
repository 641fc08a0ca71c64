"""Faults under load, with the oracle of `load.py` (rows 1-3, 7, 8, 10, 20, 22, 39, 40, 42)."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc.aio as triton_grpc
from tritonclient.utils import InferenceServerException

from tests.integration.cluster import Cluster
from tests.integration.load import Load

pytestmark = [pytest.mark.ray, pytest.mark.timeout(280)]


@pytest.fixture(autouse=True)
def as_it_was(cluster: Cluster) -> Iterator[None]:
    """Applies the plain settings again after each test; changes nothing where nothing changed."""
    yield
    cluster.run("up")


async def call_over_grpc(address: str, calls: Counter[str]) -> None:
    """Calls the echo model with a stock client, one call after the other, until cancelled."""
    client = triton_grpc.InferenceServerClient(address)
    try:
        for number in itertools.count(1):
            tensor = triton_grpc.InferInput("x", [1, 1], "INT64")
            tensor.set_data_from_numpy(np.array([[number]], np.int64))
            try:
                answer = (await client.infer("echo", [tensor])).as_numpy("y")
                calls["right" if answer.tolist() == [[number]] else "wrong"] += 1
            except InferenceServerException as error:
                calls[str(error)] += 1
            await asyncio.sleep(0.02)
    finally:
        await client.close()


async def replicas_back(cluster: Cluster, title: str, count: int, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        report = await asyncio.to_thread(cluster.status_quietly)
        if report["ready"] and len(cluster.replicas(title)) == count:
            return
        await asyncio.sleep(0.5)
    raise AssertionError(f"{title} did not come back: {report}")


async def test_killing_a_model_replica_under_load_loses_nothing(cluster: Cluster) -> None:
    async with Load(cluster.http, rate=150) as load:
        await asyncio.sleep(1.5)
        victim = cluster.replicas("echo@1")[0]
        victim.kill()
        await asyncio.sleep(4)
    answers = load.answers
    assert not answers.wrong
    assert answers.broken == 0
    assert not answers.refused  # the batch was retried on the other replica
    assert answers.right == answers.sent
    await replicas_back(cluster, "echo@1", 2)


async def test_an_input_that_kills_its_replica_costs_only_itself(cluster: Cluster) -> None:
    poison = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "INT64", "data": [-9]}]}
    async with Load(cluster.http, rate=50, path="/v2/models/echo/infer") as load:
        await asyncio.sleep(1)
        async with httpx.AsyncClient(timeout=30) as client:
            answer = await client.post(
                f"http://{cluster.http}/v2/models/echo/infer",
                json=poison,
                headers={"x-request-timeout-ms": "8000"},
            )
        await asyncio.sleep(1)
    assert answer.status_code in (503, 504)
    assert "Traceback" not in answer.text
    assert not load.answers.wrong
    assert load.answers.broken == 0
    await replicas_back(cluster, "echo@1", 2)


async def test_killing_an_ingress_is_noticed_by_its_own_connections_only(cluster: Cluster) -> None:
    async with Load(cluster.http, rate=100) as load:
        await asyncio.sleep(1.5)
        victim = cluster.replicas("Ingress")[0]
        own = sum(
            1
            for each in victim.net_connections(kind="tcp")
            if each.laddr
            and each.status == psutil.CONN_ESTABLISHED
            and each.laddr.port == cluster.ports[0]
        )
        victim.kill()
        await asyncio.sleep(0.3)
        broken = load.answers.broken
        await asyncio.sleep(3)
    assert not load.answers.wrong
    # Its open connections, and those that the kernel gave it until its sockets were closed.
    assert load.answers.broken <= own + 100 * 0.3
    assert load.answers.broken == broken  # nobody fails later: the sibling took over at once
    assert load.answers.right + load.answers.broken == load.answers.sent
    await replicas_back(cluster, "Ingress", 2)


async def test_a_poison_row_fails_alone(cluster: Cluster) -> None:
    url = f"http://{cluster.http}/v2/models/echo/infer"

    def body(value: int) -> dict[str, object]:
        tensor = {"name": "x", "shape": [1, 1], "datatype": "INT64", "data": [value]}
        return {"inputs": [tensor]}

    async with httpx.AsyncClient(timeout=30) as client:
        values = [1, 2, -1, 3, -2, 4, 5, 6] * 8
        replies = await asyncio.gather(*[client.post(url, json=body(v)) for v in values])
    for value, reply in zip(values, replies, strict=True):
        expected = {-1: 500, -2: 400}.get(value, 200)
        assert reply.status_code == expected, reply.text
        assert "echo.py" not in reply.text


async def test_rolling_both_ingress_and_replicas_under_load_fails_nothing(
    cluster: Cluster,
) -> None:
    before = {p.pid for p in [*cluster.replicas("Ingress"), *cluster.replicas("echo@1")]}
    changed = ["models.echo.versions.1.predictor.delay_s=0.003", "http.idle_timeout_s=70"]
    calls: Counter[str] = Counter()
    async with Load(cluster.http, rate=60) as load:
        callers = [asyncio.create_task(call_over_grpc(cluster.grpc, calls)) for _ in range(4)]
        await asyncio.sleep(1)
        await asyncio.to_thread(cluster.run, "up", overrides=changed)
        await asyncio.sleep(1)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    after = {p.pid for p in [*cluster.replicas("Ingress"), *cluster.replicas("echo@1")]}
    assert not before & after, "nothing was replaced"
    assert calls.pop("right") > 100
    assert not calls
    assert not load.answers.wrong
    assert not load.answers.refused
    assert load.answers.broken == 0
    assert load.answers.right == load.answers.sent


async def test_new_weights_restart_nothing_and_fail_nothing(cluster: Cluster) -> None:
    before = {p.pid for p in cluster.processes() if "ray::Serve" in " ".join(p.cmdline())}
    weights = (
        "models.echo.release.candidates=[{version: '1', weight: 50}, {version: '2', weight: 50}]"
    )
    async with Load(cluster.http, rate=60) as load:
        await asyncio.to_thread(cluster.run, "up", overrides=[weights])
        await asyncio.sleep(1)
        load.answers.versions.clear()
        await asyncio.sleep(3)
    after = {p.pid for p in cluster.processes() if "ray::Serve" in " ".join(p.cmdline())}
    assert before == after
    assert load.answers.right == load.answers.sent
    share = load.answers.versions["2"] / load.answers.versions.total()
    assert 0.3 < share < 0.7


async def test_a_version_that_cannot_load_changes_nothing(cluster: Cluster) -> None:
    broken = "models.echo.versions.2.predictor._target_=serve_app.predictors.echo.NoSuchModel"
    async with Load(cluster.http, rate=40) as load:
        done = await asyncio.to_thread(cluster.run, "up", overrides=[broken], check=False)
    assert done.returncode == 1
    assert "NoSuchModel" in done.stderr
    assert "echo 2" in done.stderr
    assert "former deployment serves" in done.stdout
    assert load.answers.right == load.answers.sent
    assert (await asyncio.to_thread(cluster.status))["ready"]


async def test_inference_goes_on_without_the_router(cluster: Cluster) -> None:
    async with Load(cluster.http, rate=60) as load:
        await asyncio.sleep(0.5)
        for process in cluster.replicas("ModelRouter"):
            process.kill()
        await asyncio.sleep(4)
    assert load.answers.right == load.answers.sent
    await replicas_back(cluster, "ModelRouter", 1)
