"""One model over OIP JSON, OIP binary and gRPC, beside servers that do nothing else."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import digits, grpc_calls, wrk
from benchmarks.cluster import cluster, prepare_models
from benchmarks.comparison import Comparison, rotated
from benchmarks.errors import BenchmarkError
from benchmarks.load import LoadResult
from benchmarks.measure import observe, warm_up
from benchmarks.run_digits import BARE, OVERRIDES
from benchmarks.running import Running, baseline, launched
from benchmarks.settings import Settings

CLUSTER = "serve-app"
JSON, BINARY, GRPC = (f"{CLUSTER}, {protocol}" for protocol in ("JSON", "binary", "gRPC"))
BARE_GRPC = "bare-grpc-echo"
CONNECTIONS = (1, 16, 64)

Load = Callable[[Running, int, float], LoadResult]


def run(settings: Settings) -> dict[str, Any]:
    """Measures the cluster by each protocol, and the bare servers, in turns."""
    loads = _loads()
    ways = {CLUSTER: [JSON, BINARY, GRPC], BARE: [BARE], BARE_GRPC: [BARE_GRPC]}
    requests = digits.bodies()
    comparison = Comparison("protocols", "connections", settings)

    def visit(name: str, server: Running, repeat: int) -> None:
        if name == BARE_GRPC:
            loads[name](server, 16, 1.0)
        else:
            warm_up(server, digits.PATH, requests)
        if name == CLUSTER:
            _check_binary(server.url, requests)
            loads[GRPC](server, 16, 1.0)
        for count in settings.connections or CONNECTIONS:
            for way in rotated(ways[name], repeat):
                load = loads[way]
                one = observe(server, lambda: load(server, count, settings.seconds))  # noqa: B023
                comparison.add(way, count, one)

    with tempfile.TemporaryDirectory(prefix="bench-protocols-") as folder:
        home, logs = Path(folder, "home"), Path(folder)
        weights = prepare_models(home)
        servers = {
            CLUSTER: lambda: cluster(OVERRIDES, home, digits.PATH, requests[0]),
            BARE: lambda: baseline(BARE, "bare_uvicorn", weights, logs, requests[0]),
            BARE_GRPC: lambda: launched(BARE_GRPC, "bare_grpc", (), logs, grpc_calls.is_up),
        }
        comparison.in_turns(servers, visit)
    return comparison.result(model="digits version 2, one row of 64 numbers")


def _loads() -> dict[str, Load]:
    json_bodies = digits.bodies()
    binary_bodies, headers = digits.binary_bodies()

    def json(server: Running, connections: int, seconds: float) -> LoadResult:
        return wrk.run(server.url + digits.PATH, json_bodies, connections, seconds)

    def binary(server: Running, connections: int, seconds: float) -> LoadResult:
        return wrk.run(server.url + digits.PATH, binary_bodies, connections, seconds, headers)

    def grpc(server: Running, connections: int, seconds: float) -> LoadResult:
        return grpc_calls.run(server.grpc, connections, seconds)

    return {JSON: json, BARE: json, BINARY: binary, GRPC: grpc, BARE_GRPC: grpc}


def _check_binary(url: str, requests: list[bytes]) -> None:
    bodies, headers = digits.binary_bodies()
    found, expected = digits.logits(url, bodies, headers), digits.logits(url, requests)
    if not np.allclose(found, expected, atol=1e-5):
        raise BenchmarkError("binary answers differ from JSON answers")
