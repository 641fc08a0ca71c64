"""Digits version 2, OIP JSON: the cluster, Ray Serve's defaults and one bare process, in turns."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import digits
from benchmarks.cluster import NAME, cluster, prepare_models
from benchmarks.comparison import Comparison, Start
from benchmarks.measure import sample, warm_up
from benchmarks.running import Running, baseline
from benchmarks.settings import Settings

RAY_DEFAULTS = "ray-serve-defaults"
BARE = "bare-uvicorn"
CONNECTIONS = (1, 4, 16, 64, 256)
RAY_CONNECTIONS = (1, 16, 64)
"""Of the server that we are not afraid of: it is here for scale, and each figure takes its time."""
OVERRIDES = (
    "model=[digits]",
    "ingress.replicas=1",
    "models.digits.versions.2.replicas.min=1",
    "models.digits.versions.2.replicas.max=1",
)


def run(settings: Settings) -> dict[str, Any]:
    """Measures all servers, one at a time."""
    probe = digits.bodies(1)[0]
    with tempfile.TemporaryDirectory(prefix="bench-digits-") as folder:
        home = Path(folder, "home")
        weights = prepare_models(home)

        def bare(name: str, module: str) -> Start:
            return lambda: baseline(name, module, weights, Path(folder), probe)

        servers = {
            NAME: lambda: cluster(OVERRIDES, home, digits.PATH, probe),
            RAY_DEFAULTS: bare(RAY_DEFAULTS, "ray_serve_default"),
            BARE: bare(BARE, "bare_uvicorn"),
        }
        counts = {name: settings.connections or CONNECTIONS for name in servers}
        counts[RAY_DEFAULTS] = settings.connections or RAY_CONNECTIONS
        found = compare("digits", servers, counts, settings)
    return found.result(model="digits version 2, one row of 64 numbers, OIP JSON")


def compare(
    title: str,
    servers: Mapping[str, Start],
    connections: Mapping[str, tuple[int, ...]],
    settings: Settings,
) -> Comparison:
    """Measures servers of digits over OIP JSON, all of which must compute the same."""
    requests = digits.bodies()
    comparison = Comparison(title, "connections", settings)
    answers: list[digits.Array] = []

    def visit(name: str, server: Running, repeat: int) -> None:
        answers.append(digits.logits(server.url, requests))
        digits.check_same(name, answers[-1], answers[0])
        warm_up(server, digits.PATH, requests)
        for count in connections[name]:
            one = sample(server, digits.PATH, requests, count, settings.seconds)
            comparison.add(name, count, one)

    comparison.in_turns(servers, visit)
    return comparison
