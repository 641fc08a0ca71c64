"""Results as the scenarios make them, with figures that keep every promise exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.measure import Sample, summarize


def one(rate: float, p50_ms: float | None, cpu_us: float, errors: int = 0) -> dict[str, Any]:
    p99_ms = None if p50_ms is None else 2 * p50_ms
    processes, memory = {"ingress": cpu_us}, {"ingress": 100.0}
    return summarize([Sample(rate, p50_ms, p99_ms, errors, processes, p50_ms, memory)])


def counts(rate: float, p50_ms: float, cpu_us: float) -> dict[str, Any]:
    return {str(count): one(rate, p50_ms, cpu_us) for count in (1, 16, 64)}


def comparison(axis: str, servers: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
    return {
        "model": "a model", **facts, "axis": axis, "seconds": 1.0, "repeats": 1, "servers": servers
    }  # fmt: skip


def digits() -> dict[str, Any]:
    ours = counts(11_700.0, 0.7, 130.0)
    ours["16"] = one(8100.0, 0.7, 130.0)
    return comparison(
        "connections",
        {
            "serve-app": ours,
            "ray-serve-defaults": counts(260.0, 4.0, 9000.0),
            "bare-uvicorn": counts(9000.0, 0.2, 100.0),
        },
    )


def protocols() -> dict[str, Any]:
    return comparison(
        "connections",
        {
            "serve-app, JSON": counts(10_000.0, 1.0, 100.0),
            "serve-app, binary": counts(11_500.0, 1.0, 90.0),
            "serve-app, gRPC": counts(2000.0, 5.0, 300.0),
            "bare-uvicorn": counts(9000.0, 0.2, 100.0),
            "bare-grpc-echo": counts(4000.0, 5.0, 200.0),
        },
    )


def large() -> dict[str, Any]:
    return comparison(
        "bytes",
        {
            "serve-app": {"602112": one(300.0, 20, 1500.0)},
            "bare-body": {"602112": one(900.0, 10, 500.0)},
        },
    )


def minilm() -> dict[str, Any]:
    return comparison(
        "lengths",
        {
            "serve-app": {"uniform": one(90.0, 300, 9000.0), "skewed": one(200.0, 150, 4500.0)},
            "plain-torch": {"uniform": one(100.0, None, 9000), "skewed": one(210.0, None, 4500)},
        },
    )


def steady() -> dict[str, Any]:
    return {
        "model": "a model",
        "minutes": 5.0,
        "share": 0.8,
        "capacity_per_s": 10_000.0,
        "capacity_p50_ms": 1.0,
        "rate_per_s": 8000.0,
        "requests": 2_400_000,
        "answered": 2_400_000,
        "refused": 0,
        "lost": 0,
        "errors": 0,
        "p50_ms": 1.0,
        "p90_ms": 2.0,
        "p99_ms": 5.0,
        "max_ms": 30.0,
        "sent_late_p99_ms": 0.2,
        "memory": {
            "ingress": {"after_warm_up_mib": 200.0, "end_mib": 215.0},
            "replica digits@2": {"after_warm_up_mib": 300.0, "end_mib": 300.0},
            "dashboard": {"after_warm_up_mib": 300.0, "end_mib": 900.0},
        },
    }


def startup() -> dict[str, Any]:
    return {
        "config": "the default",
        "repeats": 1,
        "first_answer_s": {
            "first": {"median": 30.0, "min": 29.0, "max": 31.0},
            "again": {"median": 20.0, "min": 19.0, "max": 21.0},
        },
    }


def routing() -> dict[str, Any]:
    figures = {
        "choose_us": 5.0,
        "count_us": 1.0,
        "publish_s": 1.0,
        "publish_change_s": 0.05,
        "take_s": 1.0,
        "take_change_s": 0.001,
    }
    return {
        "models": 10_000,
        "versions": 3,
        "repeats": 1,
        **{name: {"median": value, "min": value, "max": value} for name, value in figures.items()},
    }


def scaling() -> dict[str, Any]:
    return {
        "config": "a model",
        "repeats": 1,
        "load_s": 1.0,
        "step": 8.0,
        "seconds": {
            "second_replica": {"median": 11.0, "min": 9.0, "max": 12.0},
            "wake": {"median": 5.0, "min": 4.0, "max": 6.0},
        },
        "errors": 0,
    }


def spread(median: float) -> dict[str, float]:
    return {"median": median, "min": median, "max": median}


def split() -> dict[str, Any]:
    rows = {"16": {"2": spread(5.5)}, "64": {"2": spread(22.5)}}
    return comparison(
        "connections",
        {
            "pinned": counts(10_000.0, 1.0, 100.0),
            "100 / 0": counts(9000.0, 1.0, 105.0),
            "50 / 50": counts(7000.0, 1.0, 140.0),
            "pinned, 8 rows": counts(8000.0, 1.0, 120.0),
            "50 / 50, 8 rows": counts(7200.0, 1.0, 130.0),
        },
        users=1000,
        batch_rows={"pinned": rows, "100 / 0": rows, "50 / 50": rows},
    )


def neighbours() -> dict[str, Any]:
    def event(p99_ms: float) -> dict[str, Any]:
        figures = {"s": 10.0, "p50_ms": 1.0, "p99_ms": p99_ms, "max_ms": 50.0}
        of = {name: spread(value) for name, value in figures.items()}
        return {**of, "sent_late_p99_ms": spread(0.2)}

    return {
        "model": "a model",
        "repeats": 1,
        "rate_per_s": 200.0,
        "events": {"quiet": event(4.0), "load": event(5.0), "replace": event(6.0)},
        "errors": 0,
    }


def rollback() -> dict[str, Any]:
    return {
        "rate_per_s": 50.0,
        "repeats": 1,
        "seconds": {"25": spread(2.0), "5": {"median": 5.0, "min": 4.0, "max": 15.0}},
        "failed": {"25": 30, "5": 20},
        "errors": 0,
    }


def results() -> dict[str, Any]:
    return {
        "digits": digits(),
        "protocols": protocols(),
        "large": large(),
        "minilm": minilm(),
        "steady": steady(),
        "startup": startup(),
        "routing": routing(),
        "scaling": scaling(),
        "split": split(),
        "neighbours": neighbours(),
        "rollback": rollback(),
    }
