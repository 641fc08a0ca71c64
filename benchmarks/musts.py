"""What the product promises, and whether the measurements keep it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.cluster import NAME
from benchmarks.run_digits import BARE, RAY_DEFAULTS

Results = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Must:
    """One promise."""

    text: str
    scenario: str
    sense: Literal[">=", "<="]
    target: float
    unit: str
    value: Callable[[Any], float]
    """Takes the measured value out of the scenario's results."""
    errors: Callable[[Any], int]
    """Requests of ours that failed: with one of them the promise is not kept."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A promise held against the measurements."""

    text: str
    target: str
    measured: float
    unit: str
    errors: int
    passed: bool


def evaluate(results: Results) -> list[Verdict]:
    """Judges every promise whose scenario was measured."""
    return [_judge(must, results[must.scenario]) for must in MUSTS if must.scenario in results]


def _judge(must: Must, result: Any) -> Verdict:
    measured, errors = must.value(result), must.errors(result)
    kept = measured >= must.target if must.sense == ">=" else measured <= must.target
    return Verdict(
        text=must.text,
        target=f"{must.sense} {must.target:g}",
        measured=round(measured, 3),
        unit=must.unit,
        errors=errors,
        passed=kept and errors == 0,
    )


def _median(result: Any, server: str, connections: int, figure: str) -> float:
    return float(result["servers"][server][str(connections)][figure]["median"])


def _ratio(result: Any, other: str, connections: int, figure: str) -> float:
    ours = _median(result, NAME, connections, figure)
    return ours / _median(result, other, connections, figure)


def _digits_errors(connections: int) -> Callable[[Any], int]:
    return lambda result: int(result["servers"][NAME][str(connections)]["errors"])


def _minilm_errors(result: Any) -> int:
    return sum(
        int(mode["errors"]) for of in result["lengths"].values() for mode in of["modes"].values()
    )


MUSTS = (
    Must(
        "requests/s at 64 connections, against Ray Serve's defaults",
        *("digits", ">=", 25, "x"),
        lambda result: _ratio(result, RAY_DEFAULTS, 64, "requests_per_s"),
        _digits_errors(64),
    ),
    Must(
        "median latency at 1 connection, against Ray Serve's defaults",
        *("digits", "<=", 0.25, "x"),
        lambda result: _ratio(result, RAY_DEFAULTS, 1, "p50_ms"),
        _digits_errors(1),
    ),
    Must(
        "requests/s at 64 connections, against one bare uvicorn process",
        *("digits", ">=", 0.6, "x"),
        lambda result: _ratio(result, BARE, 64, "requests_per_s"),
        _digits_errors(64),
    ),
    Must(
        "CPU per request at 64 connections, all our processes",
        *("digits", "<=", 250, "µs"),
        lambda result: _median(result, NAME, 64, "cpu_us"),
        _digits_errors(64),
    ),
    Must(
        "sentences/s in groups of similar length, against order of arrival (the worse mix)",
        *("minilm", ">=", 1.5, "x"),
        lambda result: min(float(of["ratio"]) for of in result["lengths"].values()),
        _minilm_errors,
    ),
    Must(
        "`up` on an installed environment, empty home: first answer",
        *("startup", "<=", 30, "s"),
        lambda result: float(result["first_answer_s"]["first"]["median"]),
        lambda result: 0,
    ),
)
