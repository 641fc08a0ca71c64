"""Minutes of an open loop at a constant share of the capacity: does memory grow, do stalls show?"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import digits, memory, wrk
from benchmarks.cluster import cluster, prepare_models
from benchmarks.cpu import CpuMeter
from benchmarks.errors import BenchmarkError
from benchmarks.generator import Generator, generating
from benchmarks.measure import warm_up
from benchmarks.run_digits import OVERRIDES
from benchmarks.running import Running
from benchmarks.settings import Settings

SHARE = 0.8
CAPACITY_CONNECTIONS = 64
WARM_UP_S = 60.0
"""Memory is looked at from here on; in short runs from a fifth of them."""
EVERY_S = 5.0

Memory = list[tuple[float, dict[str, float]]]
"""Seconds since the start, MiB by role of the process."""


def run(settings: Settings) -> dict[str, Any]:
    """Measures the capacity of the cluster, then how it lives with a share of it."""
    requests = digits.bodies()
    with tempfile.TemporaryDirectory(prefix="bench-steady-") as folder:
        home = Path(folder, "home")
        prepare_models(home)
        with cluster(OVERRIDES, home, digits.PATH, requests[0]) as server:
            warm_up(server, digits.PATH, requests)
            closed = wrk.run(
                server.url + digits.PATH, requests, CAPACITY_CONNECTIONS, settings.seconds
            )
            rate = SHARE * closed.requests_per_s
            settings.tell(
                f"steady: {closed.requests_per_s:,.0f} requests/s at {CAPACITY_CONNECTIONS} "
                f"connections, now {settings.minutes:g} minutes at {rate:,.0f}/s"
            )
            found, seen, cpu_us = _open_loop(server, rate, settings.minutes * 60)
    return {
        "model": "digits version 2, one row of 64 numbers, OIP JSON",
        "minutes": settings.minutes,
        "share": SHARE,
        "capacity_per_s": round(closed.requests_per_s, 1),
        "capacity_p50_ms": closed.p50_ms,
        "rate_per_s": round(rate, 1),
        **found,
        "errors": found["refused"] + found["lost"],
        "cpu_us_by_process": cpu_us,
        "memory": compare_memory(seen),
        "memory_series": [
            {"s": round(at, 1), **{role: round(of, 1) for role, of in by_role.items()}}
            for at, by_role in seen
        ],
    }


def _open_loop(
    server: Running, rate: float, seconds: float
) -> tuple[dict[str, Any], Memory, dict[str, float]]:
    """Runs the generator and looks at the memory meanwhile."""
    meter = CpuMeter([server.pid])
    with generating(server, rate, seconds) as generator:
        meter.start()
        seen = _watch(server, generator, seconds)
        used = meter.stop()
        found = generator.result()
    answered = max(1, found["answered"])
    return found, seen, {role: round(of / answered * 1e6, 1) for role, of in used.items()}


def _watch(server: Running, generator: Generator, seconds: float) -> Memory:
    seen: Memory = []
    began = time.monotonic()
    while not generator.wait(min(EVERY_S, seconds / 20)):
        seen.append((time.monotonic() - began, memory.resident([server.pid])))
    return seen


def compare_memory(seen: Sequence[tuple[float, dict[str, float]]]) -> dict[str, Any]:
    """Memory after warm-up and at the end, by role of the process."""
    if not seen:
        raise BenchmarkError("too short to see how memory develops")
    end_s, end = seen[-1]
    warm_s = min(WARM_UP_S, end_s / 5)
    warm = next(by_role for at, by_role in seen if at >= warm_s)
    return {
        role: {"after_warm_up_mib": round(warm[role], 1), "end_mib": round(end[role], 1)}
        for role in sorted(end)
        if role in warm
    }
