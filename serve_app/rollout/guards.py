"""The guards of a strategy, each with its limits, its evidence and its words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import ceil, floor, isfinite, log10
from typing import Any, NamedTuple

from serve_app.domain.release import ErrorGuard, Guards, LatencyGuard, OutcomeGuard, Outcomes
from serve_app.rollout.checks import Check, EventLimit, EventRatio, LatencyRatio, OutcomeMean
from serve_app.rollout.measure import DISAGREEMENTS, FAULTS, WRONG, Measure, percent
from serve_app.rollout.side import Side

Maker = Callable[[float], Check]
"""Makes a check that may break with this probability although its limit is kept."""


class Guard(NamedTuple):
    """One thing that must not get worse."""

    name: str
    """In the evidence, such as "latency_p99"."""
    title: str
    checks: Sequence[Check]
    counts: Callable[[Side], dict[str, Any]]
    """What counts of one side, ready for JSON."""
    words: Callable[[Side], str]
    """The same in a few words."""
    seen: Callable[[Side], int]
    """How much of one side it has to judge by."""
    unit: str = "requests"
    mirrored: bool = False
    """Whether it judges mirrored answers, which come before there is traffic."""

    def breach(self, names: tuple[str, str], new: Side, former: Side) -> str | None:
        """The first limit that is broken, in words; None while all hold.

        Args:
            names: of the new side and of the former one.
            new: its record.
            former: its record.
        """
        for finding in self._findings():
            if finding.broken:
                return (
                    f"{self.title} of {names[0]}: {self.words(new)} (limit {finding.limit}), "
                    f"{names[1]}: {self.words(former)}; the chance of such a record with a version "
                    f"that keeps the limit is below {_above(finding.chance)}"
                )
        return None

    def document(self, new: Side, former: Side) -> dict[str, Any]:
        """The evidence, ready for JSON."""
        findings = [finding._asdict() for finding in self._findings()]
        return {
            "holds": not any(finding["broken"] for finding in findings),
            "new": self.counts(new),
            "former": self.counts(former),
            "limits": findings,
        }

    def _findings(self) -> Iterator[Any]:
        for check in self.checks:
            yield from check.findings()


def build(guards: Guards, outcomes: Outcomes | None) -> tuple[Guard, ...]:
    """All guards that are wanted and possible; each check has its part of alpha (Bonferroni)."""
    plans = list(_plans(guards, outcomes))
    alpha = guards.alpha / max(1, sum(len(makers) for _, makers in plans))
    return tuple(guard._replace(checks=[make(alpha) for make in makers]) for guard, makers in plans)


def state(guards: Sequence[Guard]) -> list[list[dict[str, Any]]]:
    """What all checks have learnt, ready for JSON."""
    return [[check.state() for check in guard.checks] for guard in guards]


def restore(guards: Sequence[Guard], states: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    """The reverse of `state`, on guards of the same making.

    Raises:
        ValueError: they are of another making.
    """
    for guard, its in zip(guards, states, strict=True):
        for check, one in zip(guard.checks, its, strict=True):
            check.restore(one)


def _plans(guards: Guards, outcomes: Outcomes | None) -> Iterator[tuple[Guard, list[Maker]]]:
    if guards.error_rate is not None:
        guard = Guard("error_rate", "error rate", (), _errors, _errors_words, _requests)
        yield guard, list(_error_limits(guards.error_rate))
    for latency in guards.latency:
        yield _latency(latency.quantile), list(_latency_limits(latency))
    if guards.disagreement is not None:
        limit = guards.disagreement.max
        yield _disagreement(), [partial(EventLimit, DISAGREEMENTS, limit, percent(limit))]
    if guards.outcome is not None and outcomes is not None:
        yield _outcome(outcomes), [_outcome_limit(guards.outcome, outcomes)]


def _error_limits(guard: ErrorGuard) -> Iterator[Maker]:
    if guard.max is not None:
        yield partial(EventLimit, FAULTS, guard.max, percent(guard.max))
    if guard.ratio is not None:
        yield partial(EventRatio, FAULTS, guard.ratio, f"{guard.ratio:g} times as many")


def _latency_limits(guard: LatencyGuard) -> Iterator[Maker]:
    if guard.max_ms is not None:
        measure = Measure("slow", guard.max_ms / 1000)
        yield partial(EventLimit, measure, 1 - guard.quantile, f"{guard.max_ms:g} ms")
    if guard.ratio is not None:
        words = f"{guard.ratio:g} times as slow"
        yield partial(LatencyRatio, guard.quantile, guard.ratio, words)


def _outcome_limit(guard: OutcomeGuard, outcomes: Outcomes) -> Maker:
    # Labels without a margin have the exact test; what is left is a matter of means.
    if outcomes.kind == "label" and not guard.margin:
        return partial(EventRatio, WRONG, 1.0, "the same share")
    return partial(OutcomeMean, guard.margin, f"worse by at most {guard.margin:g}")


def _requests(side: Side) -> int:
    return side.requests


def _errors(side: Side) -> dict[str, Any]:
    return {"requests": side.requests, "failed": side.faults}


def _errors_words(side: Side) -> str:
    if not side.requests:
        return "no requests"
    return f"{side.faults:,} of {side.requests:,} requests failed"


def _latency(quantile: float) -> Guard:
    name = f"p{100 * quantile:.6g}"

    def milliseconds(side: Side) -> float | None:
        found = 1000 * side.latency.quantile(quantile)
        return round(found, 3) if isfinite(found) else None

    def counts(side: Side) -> dict[str, Any]:
        return {"requests": round(side.latency.total), f"{name}_ms": milliseconds(side)}

    def words(side: Side) -> str:
        if not side.latency.total:
            return "no requests"
        found = milliseconds(side)
        text = "beyond all bounds" if found is None else f"{found:.3g} ms"
        return f"{text} in {side.latency.total:,.0f} requests"

    return Guard(f"latency_{name}", f"{name} latency", (), counts, words, _requests)


def _disagreement() -> Guard:
    def seen(side: Side) -> int:
        return side.compared

    name, unit = "disagreement", "mirrored answers"
    return Guard(name, name, (), _shadows, _shadows_words, seen, unit, mirrored=True)


def _shadows(side: Side) -> dict[str, Any]:
    return {"compared": side.compared, "differed": side.disagreed, "failed": side.failed}


def _shadows_words(side: Side) -> str:
    if not side.compared:
        return "not mirrored"
    return f"{side.disagreed:,} of {side.compared:,} mirrored answers differed"


def _outcome(outcomes: Outcomes) -> Guard:
    sign = mean_sign(outcomes)

    def counts(side: Side) -> dict[str, Any]:
        return {"outcomes": side.outcomes.count, "mean": sign * side.outcomes.mean}

    def words(side: Side) -> str:
        if outcomes.kind == "label":
            return f"{side.wrong:,} of {side.outcomes.count:,} outcomes were wrong"
        return f"{sign * side.outcomes.mean:.4g} on average of {side.outcomes.count:,} outcomes"

    def seen(side: Side) -> int:
        return side.outcomes.count

    return Guard("outcome", "outcome", (), counts, words, seen, "outcomes")


def mean_sign(outcomes: Outcomes) -> int:
    """What outcomes are multiplied with, so that more is better."""
    return -1 if outcomes.kind != "label" and outcomes.better == "lower" else 1


def _above(chance: float) -> str:
    """The chance rounded up to one digit."""
    exponent = max(floor(log10(max(chance, 1e-9))), -6)
    digits = ceil(chance / 10.0**exponent - 1e-9) or 1
    return f"{digits * 10.0**exponent:.{max(-exponent, 0)}f}"
