"""Digits version 2, OIP JSON: the cluster, Ray Serve's defaults and one bare process, in turns."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from benchmarks import digits
from benchmarks.cluster import NAME, cluster, prepare_models
from benchmarks.measure import Sample, sample, summarize, warm_up
from benchmarks.running import Running, baseline
from benchmarks.settings import Settings

RAY_DEFAULTS = "ray-serve-defaults"
BARE = "bare-uvicorn"
CONNECTIONS = (1, 16, 64)
OVERRIDES = (
    "model=[digits]",
    "ingress.replicas=1",
    "models.digits.versions.2.replicas.min=1",
    "models.digits.versions.2.replicas.max=1",
)

Start = Callable[[], AbstractContextManager[Running]]


def run(settings: Settings) -> dict[str, Any]:
    """Measures all servers, one at a time, in an order that rotates with each repeat."""
    requests = digits.bodies()
    with tempfile.TemporaryDirectory(prefix="bench-digits-") as folder:
        home = Path(folder, "home")
        weights = prepare_models(home)
        servers = _servers(home, weights, Path(folder), requests[0])
        names = list(servers)
        samples: dict[str, dict[int, list[Sample]]] = {
            name: {count: [] for count in CONNECTIONS} for name in names
        }
        expected = None
        for repeat in range(settings.repeats):
            for name in names[repeat % 3 :] + names[: repeat % 3]:
                settings.tell(f"digits, repeat {repeat + 1} of {settings.repeats}: {name}")
                with servers[name]() as server:
                    found = digits.logits(server.url, requests)
                    expected = found if expected is None else expected
                    digits.check_same(name, found, expected)
                    warm_up(server, digits.PATH, requests)
                    for count in CONNECTIONS:
                        one = sample(server, digits.PATH, requests, count, settings.seconds)
                        samples[name][count].append(one)
    return {
        "model": "digits version 2, one row of 64 numbers, OIP JSON",
        "seconds": settings.seconds,
        "repeats": settings.repeats,
        "servers": {
            name: {str(count): summarize(of) for count, of in by_count.items()}
            for name, by_count in samples.items()
        },
    }


def _servers(home: Path, weights: Path, logs: Path, probe: bytes) -> dict[str, Start]:
    return {
        NAME: lambda: cluster(OVERRIDES, home, digits.PATH, probe),
        RAY_DEFAULTS: lambda: baseline(RAY_DEFAULTS, "ray_serve_default", weights, logs, probe),
        BARE: lambda: baseline(BARE, "bare_uvicorn", weights, logs, probe),
    }
