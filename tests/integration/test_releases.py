"""Releases on a real cluster under load: canaries, rollbacks, faults, bad input, shadows (issue 4).

One cluster for all; every test begins by putting a plain release in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc.aio as triton_grpc
from sklearn.datasets import load_digits

from tests.integration.cluster import Cluster
from tests.integration.load import Load, Question

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

GUARDS = {"error_rate": {"max": 0.05}, "latency": [{"quantile": 0.99, "max_ms": 2000}]}
CANARY = {"type": "canary", "steps": [20, 50], "bake_s": 3, "min_samples": 20, "guards": GUARDS}
IMAGES = load_digits().data

# Versions that are worse than the others.
SMALL = "replicas: {min: 1, max: 1}, timeouts: {request_s: 20}, resources: {num_cpus: 0.1}"
WEIGHTS = "${oc.env:SERVE_APP_HOME}/models/digits/2/model.safetensors"
FAULTY = (
    "+models.digits.versions.4={platform: pytorch, predictor: "
    "{_target_: serve_app.predictors.torch_module.TorchModule, "
    "network: {_target_: tests.integration.faulty.FaultyMlp}}, "
    f"artifact: {{uri: '{WEIGHTS}'}}, {SMALL}}}"
)
ECHO = (
    f"{{platform: test, predictor: {{_target_: serve_app.predictors.echo.EchoModel, %s}}, {SMALL}}}"
)
FRAGILE = f"+models.echo.versions.3={ECHO % 'fail_on: 77'}"
SLOW = f"+models.echo.versions.4={ECHO % 'delay_s: 0.4'}"


def digit(number: int) -> Question:
    """Asks for the logits of an image."""
    image = IMAGES[number % len(IMAGES)].tolist()
    tensor = {"name": "x", "shape": [1, 64], "datatype": "FP32", "data": image}
    return Question(tensor, lambda data: len(data) == 10)


def candidates(**weights: int) -> list[dict[str, Any]]:
    return [{"version": version[1:], "weight": weight} for version, weight in weights.items()]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    target = Cluster(
        tmp_path_factory.mktemp("releases"),
        overrides=[
            "model=[digits,echo]",
            FAULTY,
            FRAGILE,
            SLOW,
            "models.digits.release.candidates=[{version: '1', weight: 100}]",
            "ingress.replicas=2",
            "cluster.num_cpus=4",
            "database.timeout_s=2",
            "log.level=INFO",
        ],
    )
    target.run("up")
    yield target
    target.run("down")
    assert not target.processes()


class Admin:
    """The admin API, as a program uses it."""

    def __init__(self, address: str) -> None:
        self.http = httpx.AsyncClient(base_url=f"http://{address}", timeout=30, trust_env=False)

    async def get(self, model: str, what: str) -> Any:
        answer = await self.http.get(f"/admin/v1/models/{model}/{what}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def put(self, model: str, **release: Any) -> Any:
        """Puts a release in force."""
        answer = await self.http.put(f"/admin/v1/models/{model}/release", json={"release": release})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def rollout(self, model: str) -> Any:
        found = (await self.get(model, "rollouts?limit=1"))["rollouts"]
        return found[0] if found else None

    async def until(self, model: str, *states: str, within_s: float = 60.0) -> Any:
        """Waits until the newest rollout is in one of these states."""
        deadline = time.monotonic() + within_s
        while True:
            with contextlib.suppress(AssertionError):  # the router may be away
                found = await self.rollout(model)
                if found["state"] in states:
                    return found
            assert time.monotonic() < deadline, f"{found['state']}: {found['reason']}"
            await asyncio.sleep(0.3)

    async def weights(self, model: str) -> dict[str, int]:
        release = (await self.get(model, "release"))["release"]
        return {each["version"]: each["weight"] for each in release["candidates"] if each["weight"]}


@pytest.fixture
async def admin(house: Cluster) -> AsyncIterator[Admin]:
    made = Admin(house.http)
    async with made.http:
        await made.put("digits", candidates=candidates(v1=100))
        await made.put("echo", candidates=candidates(v1=100))
        yield made


async def infer(
    client: httpx.AsyncClient, number: int, headers: dict[str, str] | None = None, at: str = ""
) -> httpx.Response:
    tensor = {"name": "x", "shape": [1, 1], "datatype": "INT64", "data": [number]}
    return await client.post(
        f"/v2/models/echo{at}/infer", json={"inputs": [tensor]}, headers=headers
    )


async def test_a_canary_is_promoted_without_a_failed_request(house: Cluster, admin: Admin) -> None:
    first = (await admin.get("digits", "release"))["number"]
    wanted = [
        "models.digits.release.candidates=[{version: '2', weight: 100}]",
        f"+models.digits.release.strategy={json.dumps(CANARY).replace(chr(34), '')}",
    ]
    async with Load(house.http, rate=60, path="/v2/models/digits/infer", ask=digit) as load:
        await asyncio.sleep(1)
        done = await asyncio.to_thread(house.run, "apply", overrides=wanted)
        ended = await admin.until("digits", "promoted", "rolled_back", "paused")
        await asyncio.sleep(2)
    assert ended["state"] == "promoted", ended["reason"]
    assert f"rollout {ended['id']} began" in done.stdout
    answers = load.answers
    assert answers.right == answers.sent
    found = (await admin.get("digits", "revisions?limit=20"))["revisions"]
    moves = [each for each in reversed(found) if each["number"] > first]
    shares = [{c["version"]: c["weight"] for c in each["release"]["candidates"]} for each in moves]
    assert [each["2"] for each in shares] == [0, 20, 50, 100]
    assert [each["actor"] for each in moves] == ["config", "rollout", "rollout", "rollout"]
    times = [time.time(), *(datetime_s(each["created_at"]) for each in reversed(moves))][::-1]
    for share, begin, end in zip(shares, times, times[1:], strict=True):
        # Tables need a moment to arrive; requests on their way go by the former one.
        got = Counter(version for at, version in answers.served if begin + 0.5 < at < end - 0.2)
        if got.total() > 20:
            assert got["2"] / got.total() == pytest.approx(share["2"] / 100, abs=0.2)
    assert await admin.weights("digits") == {"2": 100}


def datetime_s(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()
