"""How soon a canary that turns bad has no traffic any more.

It answers as the other version does until the load sends what it fails on. Counted is from the
first answer that failed to the last request that still went to it.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.cluster import cluster
from benchmarks.errors import BenchmarkError
from benchmarks.measure import spread
from benchmarks.settings import Settings
from benchmarks.single_requests import PATIENCE_S, SingleRequests, patient_client

STEPS = (25, 5)
"""Percent of the first step; each has a model in `benchmarks/configs/model/turning.yaml`."""
RATE = 50.0
GOOD_S = 10.0
"""The canary answers well for so long."""
AFTER_S = 2.0
"""The load goes on for so long after the rollout has ended."""
CANARY = "2"


def _body(value: int) -> bytes:
    tensor = {"name": "x", "shape": [1, 1], "datatype": "INT64", "data": [value]}
    return json.dumps({"inputs": [tensor]}).encode()


GOOD, BAD = _body(1), _body(13)


def run(settings: Settings) -> dict[str, Any]:
    """Lets canaries fail, one after the other, on one cluster."""
    seconds: dict[str, list[float]] = {str(step): [] for step in STEPS}
    failed, errors = dict.fromkeys(seconds, 0), 0
    with (
        tempfile.TemporaryDirectory(prefix="bench-rollback-") as folder,
        cluster(("model=[turning]",), Path(folder, "home"), _path(STEPS[0]), GOOD) as server,
    ):
        for repeat in range(settings.repeats):
            for step in STEPS:
                settings.tell(
                    f"rollback, repeat {repeat + 1} of {settings.repeats}: first step {step} %"
                )
                answers = asyncio.run(_canary(server.url, step))
                seconds[str(step)].append(answers.exposed_s)
                failed[str(step)] += answers.failed
                errors += answers.errors
    return {
        "rate_per_s": RATE,
        "repeats": settings.repeats,
        "seconds": {step: spread(found) for step, found in seconds.items()},
        "failed": failed,
        "errors": errors,
    }


class Answers:
    """What the load sees of a canary."""

    def __init__(self) -> None:
        self.seen = False
        """Whether the canary has answered."""
        self.failed = 0
        """Requests that it failed."""
        self.errors = 0
        """Requests that the other version failed."""
        self._first_failure = 0.0
        self._last_sent = 0.0

    def note(self, sent: float, answer: httpx.Response) -> None:
        """Takes one answer."""
        canary = answer.headers.get("x-model-version") == CANARY
        if answer.status_code != 200:
            self.failed += canary
            self.errors += not canary
            if canary and not self._first_failure:
                self._first_failure = time.monotonic()
        if canary:
            self.seen = True
            self._last_sent = max(self._last_sent, sent)

    @property
    def exposed_s(self) -> float:
        """Seconds from its first failure to the last request that it got."""
        return max(0.0, self._last_sent - self._first_failure)


async def _canary(url: str, step: int) -> Answers:
    """One rollout, from its begin until it is rolled back."""
    answers = Answers()
    admin = f"{url}/admin/v1/models/turning-{step}"
    async with patient_client() as client:
        load = SingleRequests(client, url + _path(step), answers.note)
        await _begin(client, f"{admin}/release")
        await load.run(GOOD, RATE, PATIENCE_S, lambda: answers.seen)
        await load.run(GOOD, RATE, GOOD_S)
        ended = asyncio.create_task(_ended(client, f"{admin}/rollouts?limit=1"))
        await load.run(BAD, RATE, PATIENCE_S, ended.done)
        await load.run(BAD, RATE, AFTER_S)
        await load.end()
        if await ended != "rolled_back":
            raise BenchmarkError(f"the rollout of turning-{step} ended as {ended.result()}")
    return answers


async def _begin(client: httpx.AsyncClient, url: str) -> None:
    """Asks for all traffic to the canary, by the strategy of the release."""
    release = (await client.get(url)).raise_for_status().json()["release"]
    weights = {"1": 0, CANARY: 100}
    candidates = [{"version": version, "weight": each} for version, each in weights.items()]
    wanted = {"release": release | {"candidates": candidates}}
    (await client.put(url, json=wanted)).raise_for_status()


async def _ended(client: httpx.AsyncClient, url: str) -> str:
    """How the newest rollout ends.

    Raises:
        BenchmarkError: it does not.
    """
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        newest = (await client.get(url)).raise_for_status().json()["rollouts"][0]
        if newest["state"] in ("promoted", "rolled_back"):
            return str(newest["state"])
        await asyncio.sleep(0.2)
    raise BenchmarkError(f"the rollout is still {newest['state']}: {newest['reason']}")


def _path(step: int) -> str:
    return f"/v2/models/turning-{step}/infer"
