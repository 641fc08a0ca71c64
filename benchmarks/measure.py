"""One measurement: load from wrk, CPU time from /proc; and the median of its repeats."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import wrk
from benchmarks.cpu import CpuMeter
from benchmarks.errors import BenchmarkError
from benchmarks.running import Running, tail

WARM_UP_S = 3.0
SETTLE_S = 2.0
"""Between the start of a server and its load: its helpers finish what they do at the start."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one server with one number of connections."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_us: dict[str, float]
    """CPU microseconds per answered request by role of the process."""


def warm_up(server: Running, path: str, bodies: Sequence[bytes]) -> None:
    """Lets a server come to rest, then gives it some load that is not measured."""
    time.sleep(SETTLE_S)
    wrk.run(server.url + path, bodies, 16, WARM_UP_S)


def sample(
    server: Running, path: str, bodies: Sequence[bytes], connections: int, seconds: float
) -> Sample:
    """Puts a server under load and measures it.

    Raises:
        BenchmarkError: not one request was answered.
    """
    meter = CpuMeter([server.pid])
    meter.start()
    result = wrk.run(server.url + path, bodies, connections, seconds)
    used = meter.stop()
    if result.answered == 0:
        raise BenchmarkError(
            f"{server.name} answered nothing in {seconds:g} s:\n{tail(server.log)}"
        )
    return Sample(
        requests_per_s=result.requests_per_s,
        p50_ms=result.p50_ms,
        p99_ms=result.p99_ms,
        errors=result.errors,
        cpu_us={name: value / result.answered * 1e6 for name, value in used.items()},
    )


def summarize(samples: Sequence[Sample]) -> dict[str, Any]:
    """Medians of the repeats, with the lowest and highest value; errors are added up."""
    roles = sorted({name for one in samples for name in one.cpu_us})
    return {
        "requests_per_s": spread(one.requests_per_s for one in samples),
        "p50_ms": spread(one.p50_ms for one in samples),
        "p99_ms": spread(one.p99_ms for one in samples),
        "errors": sum(one.errors for one in samples),
        "cpu_us": spread(sum(one.cpu_us.values()) for one in samples),
        "cpu_us_by_process": {
            name: spread(one.cpu_us.get(name, 0.0) for one in samples) for name in roles
        },
    }


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    known = list(values)
    return {
        "median": round(statistics.median(known), 3),
        "min": round(min(known), 3),
        "max": round(max(known), 3),
    }
