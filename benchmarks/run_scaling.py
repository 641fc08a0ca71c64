"""How soon a step of load has a second replica, and how soon one that sleeps answers.

Every answer names the process that gave it, so what is measured is what a client sees.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.cluster import cluster
from benchmarks.digits import body
from benchmarks.errors import BenchmarkError
from benchmarks.measure import spread
from benchmarks.running import Running
from benchmarks.settings import Settings
from benchmarks.single_requests import PATIENCE_S, SingleRequests, patient_client

STEADY, SLEEPER = "/v2/models/paced/versions/1/infer", "/v2/models/paced/versions/2/infer"
OVERRIDES = ("model=[paced]", "ingress.replicas=2", "cluster.num_cpus=4")
LOAD_S = 1.0
"""That a load of the model takes (`benchmarks/configs/model/paced.yaml`)."""
QUIET_RATE = 5.0
"""Requests per second: a quarter of what one replica can answer."""
STEP = 8.0
QUIET_S = 5.0
PROBE = body([0.0], (1, 1))


def run(settings: Settings) -> dict[str, Any]:
    """Measures both on a fresh cluster each time."""
    seconds: dict[str, list[float]] = {"second_replica": [], "wake": []}
    errors = 0
    for repeat in range(settings.repeats):
        settings.tell(f"scaling, repeat {repeat + 1} of {settings.repeats}")
        with (
            tempfile.TemporaryDirectory(prefix="bench-scaling-") as folder,
            cluster(OVERRIDES, Path(folder, "home"), STEADY, PROBE) as server,
        ):
            found, failed = asyncio.run(_step(server))
            seconds["second_replica"].append(found)
            errors += failed
            seconds["wake"].append(_wake(server))
    return {
        "config": "min 1, max 4 and min 0 replicas, default delays; 2 ingresses",
        "repeats": settings.repeats,
        "load_s": LOAD_S,
        "step": STEP,
        "seconds": {name: spread(found) for name, found in seconds.items()},
        "errors": errors,
    }


class _Answers:
    """Who answers, and since when."""

    def __init__(self) -> None:
        self.first: dict[int, float] = {}
        """Process -> when its first answer came, by `time.monotonic`."""
        self.failed = 0

    def note(self, sent: float, answer: httpx.Response) -> None:
        """Takes one answer."""
        if answer.status_code == 200:
            self.first.setdefault(_process(answer), time.monotonic())
        else:
            self.failed += 1

    def two(self) -> bool:
        """Whether a second replica has answered."""
        return len(self.first) > 1


async def _step(server: Running) -> tuple[float, int]:
    """Seconds from the step to the first answer of a second replica; and requests that failed."""
    answers = _Answers()
    async with patient_client() as client:
        load = SingleRequests(client, server.url + STEADY, answers.note)
        await load.run(PROBE, QUIET_RATE, QUIET_S, answers.two)
        if len(answers.first) != 1:
            raise BenchmarkError("before the step one replica should have answered")
        stepped = time.monotonic()
        await load.run(PROBE, STEP * QUIET_RATE, PATIENCE_S, answers.two)
        await load.end()
    if not answers.two():
        raise BenchmarkError(f"no second replica within {PATIENCE_S:.0f} s")
    return max(answers.first.values()) - stepped, answers.failed


def _wake(server: Running) -> float:
    """Seconds to the first answer of a version that sleeps."""
    with httpx.Client(trust_env=False, timeout=PATIENCE_S) as client:
        before = _process(client.post(server.url + SLEEPER, content=PROBE).raise_for_status())
        deadline = time.monotonic() + PATIENCE_S
        while psutil.pid_exists(before):
            if time.monotonic() > deadline:
                raise BenchmarkError("the version does not go to sleep")
            time.sleep(0.1)
        time.sleep(1.0)
        began = time.monotonic()
        client.post(server.url + SLEEPER, content=PROBE).raise_for_status()
        return time.monotonic() - began


def _process(answer: httpx.Response) -> int:
    return int(answer.json()["outputs"][0]["data"][0])
