"""Results as the scenarios make them, with figures that keep every promise exactly."""

from __future__ import annotations

from typing import Any

from benchmarks.measure import Sample, summarize


def one(rate: float, p50_ms: float, cpu_us: float, errors: int = 0) -> dict[str, Any]:
    return summarize([Sample(rate, p50_ms, 2 * p50_ms, errors, {"ingress": cpu_us})])


def results() -> dict[str, Any]:
    def counts(rate: float, p50_ms: float, cpu_us: float) -> dict[str, Any]:
        return {str(count): one(rate, p50_ms, cpu_us) for count in (1, 16, 64)}

    def lengths(ratio: float) -> dict[str, Any]:
        modes = {"grouped": one(150.0 * ratio, 20, 1), "arrival": one(150.0, 30, 1)}
        return {"modes": modes, "ratio": ratio}

    return {
        "digits": {
            "model": "digits",
            "seconds": 1.0,
            "repeats": 1,
            "servers": {
                "serve-app": counts(6000.0, 1.0, 250.0),
                "ray-serve-defaults": counts(240.0, 4.0, 9000.0),
                "bare-uvicorn": counts(10_000.0, 0.2, 100.0),
            },
        },
        "minilm": {
            "model": "minilm",
            "connections": 32,
            "max_rows": 32,
            "seconds": 2.0,
            "repeats": 1,
            "lengths": {"uniform": lengths(1.5), "skewed": lengths(2.0)},
        },
        "startup": {
            "config": "the default",
            "repeats": 1,
            "first_answer_s": {
                "first": {"median": 30.0, "min": 29.0, "max": 31.0},
                "again": {"median": 20.0, "min": 19.0, "max": 21.0},
            },
        },
    }
