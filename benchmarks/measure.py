"""One measurement: load, CPU time and memory from /proc; and the median of its repeats."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks import memory, wrk
from benchmarks.cpu import CpuMeter
from benchmarks.errors import BenchmarkError
from benchmarks.load import LoadResult
from benchmarks.running import Running, tail

WARM_UP_S = 3.0
SETTLE_S = 2.0
"""Between the start of a server and its load: its helpers finish what they do at the start."""

LATENCIES = ("p50_ms", "p90_ms", "p99_ms")


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one server at one point, such as a number of connections."""

    requests_per_s: float
    p50_ms: float | None
    p99_ms: float | None
    errors: int
    cpu_us: dict[str, float]
    """CPU microseconds per answered request by role of the process."""
    p90_ms: float | None = None
    rss_mib: dict[str, float] = field(default_factory=dict)
    """Resident memory at the end by role of the process."""


def warm_up(
    server: Running, path: str, bodies: Sequence[bytes], headers: Mapping[str, str] = wrk.JSON
) -> None:
    """Lets a server come to rest, then gives it some load that is not measured."""
    time.sleep(SETTLE_S)
    wrk.run(server.url + path, bodies, 16, WARM_UP_S, headers)


def sample(
    server: Running,
    path: str,
    bodies: Sequence[bytes],
    connections: int,
    seconds: float,
    headers: Mapping[str, str] = wrk.JSON,
) -> Sample:
    """Puts a server under HTTP load and measures it.

    Raises:
        BenchmarkError: not one request was answered.
    """
    return observe(
        server, lambda: wrk.run(server.url + path, bodies, connections, seconds, headers)
    )


def observe(server: Running, load: Callable[[], LoadResult]) -> Sample:
    """Measures a server while this load runs.

    Raises:
        BenchmarkError: not one request was answered.
    """
    meter = CpuMeter([server.pid])
    meter.start()
    result = load()
    used = meter.stop()
    if result.answered == 0:
        raise BenchmarkError(
            f"{server.name} answered nothing in {result.seconds:g} s:\n{tail(server.log)}"
        )
    return Sample(
        requests_per_s=result.requests_per_s,
        p50_ms=result.p50_ms,
        p90_ms=result.p90_ms,
        p99_ms=result.p99_ms,
        errors=result.errors,
        cpu_us={name: value / result.answered * 1e6 for name, value in used.items()},
        rss_mib=memory.resident([server.pid]),
    )


def summarize(samples: Sequence[Sample]) -> dict[str, Any]:
    """Medians of the repeats, with the lowest and highest value; errors are added up."""
    latencies = {
        name: [value for one in samples if (value := getattr(one, name)) is not None]
        for name in LATENCIES
    }
    return {
        "requests_per_s": spread(one.requests_per_s for one in samples),
        **{name: spread(found) for name, found in latencies.items() if found},
        "errors": sum(one.errors for one in samples),
        "cpu_us": spread(sum(one.cpu_us.values()) for one in samples),
        "cpu_us_by_process": _by_role([one.cpu_us for one in samples]),
        "rss_mib_by_process": _by_role([one.rss_mib for one in samples]),
    }


def _by_role(samples: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    roles = sorted({role for one in samples for role in one})
    return {role: spread(one.get(role, 0.0) for one in samples) for role in roles}


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    known = list(values)
    return {
        "median": round(statistics.median(known), 3),
        "min": round(min(known), 3),
        "max": round(max(known), 3),
    }
