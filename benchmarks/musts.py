"""What the product promises, and whether the measurements keep it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.cluster import NAME
from benchmarks.run_digits import BARE, RAY_DEFAULTS
from benchmarks.run_large import BARE_BODY, IMAGE_BYTES
from benchmarks.run_minilm import PLAIN
from benchmarks.run_neighbours import CHANGES, QUIET
from benchmarks.run_protocols import BARE_GRPC, BINARY, GRPC, JSON
from benchmarks.run_rollback import RATE
from benchmarks.run_routing import MODELS
from benchmarks.run_split import ONE_ARM, PINNED, PINNED_CAPPED, SPLIT_CAPPED

Results = Mapping[str, Any]
SLACK_MIB = 5.0
"""Of memory that may come and go, such as buffers of the allocator."""


@dataclass(frozen=True, slots=True)
class Must:
    """One promise."""

    text: str
    scenario: str
    sense: Literal[">=", "<="]
    target: float
    unit: str
    value: Callable[[Any], float | None]
    """Takes the measured value out of the scenario's results; None if it was not measured."""
    errors: Callable[[Any], int]
    """Requests of ours that failed: with one of them the promise is not kept."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A promise held against the measurements."""

    text: str
    target: str
    measured: float | None
    """None if a run left it out, such as one with other numbers of connections."""
    unit: str
    errors: int
    passed: bool | None


def evaluate(results: Results) -> list[Verdict]:
    """Judges every promise whose scenario was measured."""
    return [_judge(must, results[must.scenario]) for must in MUSTS if must.scenario in results]


def _judge(must: Must, result: Any) -> Verdict:
    measured, errors = must.value(result), must.errors(result)
    passed = None
    if measured is not None:
        kept = measured >= must.target if must.sense == ">=" else measured <= must.target
        passed = kept and errors == 0
    return Verdict(
        text=must.text,
        target=f"{must.sense} {must.target:g}",
        measured=None if measured is None else round(measured, 3),
        unit=must.unit,
        errors=errors,
        passed=passed,
    )


def median(result: Any, server: str, point: object, figure: str) -> float | None:
    """The median of a figure of a server at a point; None if it was not measured."""
    found = result["servers"].get(server, {}).get(str(point), {}).get(figure)
    return None if found is None else float(found["median"])


def ratio(result: Any, ours: str, theirs: str, point: object, figure: str) -> float | None:
    """A figure of one server divided by that of another; None if one was not measured."""
    one, other = median(result, ours, point, figure), median(result, theirs, point, figure)
    return None if one is None or not other else one / other


def _figure(server: str, point: object, figure: str) -> Callable[[Any], float | None]:
    return lambda result: median(result, server, point, figure)


def _ratio(ours: str, theirs: str, point: object, figure: str) -> Callable[[Any], float | None]:
    return lambda result: ratio(result, ours, theirs, point, figure)


def _errors(*where: tuple[str, object]) -> Callable[[Any], int]:
    """Errors of these servers at these points."""
    return lambda result: sum(
        result["servers"].get(server, {}).get(str(point), {}).get("errors", 0)
        for server, point in where
    )


def _worse_mix(result: Any) -> float | None:
    lengths = result["servers"].get(NAME, {})
    found = [ratio(result, NAME, PLAIN, mix, "requests_per_s") for mix in lengths]
    return min((value for value in found if value is not None), default=None)


def _minilm_errors(result: Any) -> int:
    return sum(int(of["errors"]) for of in result["servers"][NAME].values())


def _quotient(figure: str, other: str) -> Callable[[Any], float | None]:
    """One figure of a scenario divided by another, if it has both."""
    return lambda result: result[figure] / result[other] if result.get(other) else None


def _memory_growth(result: Any) -> float | None:
    """The most that an ingress or a replica grew, as a factor, after what may come and go."""
    return max(
        (
            (of["end_mib"] - SLACK_MIB) / of["after_warm_up_mib"]
            for role, of in result["memory"].items()
            if role == "ingress" or role.startswith("replica")
        ),
        default=None,
    )


def _worst_event(result: Any) -> float:
    """The p99 beside a change against the quiet one."""
    p99 = {name: float(of["p99_ms"]["median"]) for name, of in result["events"].items()}
    return max(p99[change] for change in CHANGES) / p99[QUIET]


MUSTS = (
    Must(
        "digits: median latency at 1 connection",
        *("digits", "<=", 0.7, "ms"),
        _figure(NAME, 1, "p50_ms"),
        _errors((NAME, 1)),
    ),
    Must(
        "digits: requests/s at 16 connections, against one bare uvicorn process",
        *("digits", ">=", 0.9, "x"),
        _ratio(NAME, BARE, 16, "requests_per_s"),
        _errors((NAME, 16)),
    ),
    Must(
        "digits: requests/s at 64 connections, against one bare uvicorn process",
        *("digits", ">=", 1.3, "x"),
        _ratio(NAME, BARE, 64, "requests_per_s"),
        _errors((NAME, 64)),
    ),
    Must(
        "digits: CPU per request at 64 connections, all our processes",
        *("digits", "<=", 130, "µs"),
        _figure(NAME, 64, "cpu_us"),
        _errors((NAME, 64)),
    ),
    Must(
        "digits: requests/s at 64 connections, against Ray Serve's defaults",
        *("digits", ">=", 45, "x"),
        _ratio(NAME, RAY_DEFAULTS, 64, "requests_per_s"),
        _errors((NAME, 64)),
    ),
    Must(
        "digits: median latency at 1 connection, against Ray Serve's defaults",
        *("digits", "<=", 0.25, "x"),
        _ratio(NAME, RAY_DEFAULTS, 1, "p50_ms"),
        _errors((NAME, 1)),
    ),
    Must(
        "protocols: requests/s at 64 connections, OIP binary against OIP JSON",
        *("protocols", ">=", 1.15, "x"),
        _ratio(BINARY, JSON, 64, "requests_per_s"),
        _errors((BINARY, 64), (JSON, 64)),
    ),
    Must(
        "protocols: gRPC calls/s at 64 connections, against a bare grpc.aio echo server",
        *("protocols", ">=", 0.5, "x"),
        _ratio(GRPC, BARE_GRPC, 64, "requests_per_s"),
        _errors((GRPC, 64)),
    ),
    Must(
        f"large: CPU per request of {IMAGE_BYTES:,} bytes, against a process that only reads it",
        *("large", "<=", 3, "x"),
        _ratio(NAME, BARE_BODY, IMAGE_BYTES, "cpu_us"),
        _errors((NAME, IMAGE_BYTES)),
    ),
    Must(
        "minilm: sentences/s, against plain torch with all of them sorted by length (worse mix)",
        *("minilm", ">=", 0.9, "x"),
        _worse_mix,
        _minilm_errors,
    ),
    Must(
        f"steady: memory at the end, less {SLACK_MIB:g} MiB, against that after warm-up",
        *("steady", "<=", 1.05, "x"),
        _memory_growth,
        lambda result: int(result["errors"]),
    ),
    Must(
        "steady: p99 against the median latency, at 80% of capacity",
        *("steady", "<=", 5, "x"),
        _quotient("p99_ms", "p50_ms"),
        lambda result: int(result["errors"]),
    ),
    Must(
        # Else the promise above would be kept by a queue in which everybody waits for seconds.
        "steady: median latency at 80% of capacity, against that at capacity (64 connections)",
        *("steady", "<=", 2, "x"),
        _quotient("p50_ms", "capacity_p50_ms"),
        lambda result: int(result["errors"]),
    ),
    Must(
        "startup: `up` on an installed environment, empty home: first answer",
        *("startup", "<=", 30, "s"),
        lambda result: float(result["first_answer_s"]["first"]["median"]),
        lambda result: 0,
    ),
    Must(
        f"routing: choosing a version, {MODELS:,} models of 3 versions, CPU",
        *("routing", "<=", 5, "µs"),
        lambda result: float(result["choose_us"]["median"]),
        lambda result: 0,
    ),
    Must(
        f"routing: compiling and serialising the route table of {MODELS:,} models, CPU",
        *("routing", "<=", 1, "s"),
        lambda result: float(result["publish_s"]["median"]),
        lambda result: 0,
    ),
    Must(
        "scaling: load step 1 to 8x, from 1 replica: new one serves, less its load time",
        *("scaling", "<=", 10, "s"),
        lambda result: result["seconds"]["second_replica"]["median"] - result["load_s"],
        lambda result: int(result["errors"]),
    ),
    *(
        Must(
            f"split: requests/s at {count} connections, {way} against {pinned}",
            *("split", ">=", 0.9, "x"),
            _ratio(way, pinned, count, "requests_per_s"),
            _errors((way, count), (pinned, count)),
        )
        for way, pinned, count in (
            (ONE_ARM, PINNED, 16),
            (ONE_ARM, PINNED, 64),
            (SPLIT_CAPPED, PINNED_CAPPED, 64),
        )
    ),
    Must(
        "neighbours: p99 while another model is loaded or replaced, against quiet",
        *("neighbours", "<=", 1.5, "x"),
        _worst_event,
        lambda result: int(result["errors"]),
    ),
    Must(
        f"rollback: bad canary at {RATE:g} requests/s, first failure to last request (worse step)",
        *("rollback", "<=", 15, "s"),
        lambda result: max(float(of["max"]) for of in result["seconds"].values()),
        lambda result: int(result["errors"]),
    ),
)
