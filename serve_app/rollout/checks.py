"""The limits of guards as tests that are fed with what both sides have served so far.

A check is given totals and feeds its test with what is new in them. That makes carrying over free:
what cannot be compared yet, because one side has served nothing meanwhile, is in the next totals.

**When the former side has no traffic left** (the last step, or a blue_green rollout) there is
nothing to compare with side by side. Then its record so far is frozen into a limit: the highest
rate, or the slowest quantile, that the record does not refute at a level of a quarter of the
check's alpha, times the allowed ratio. Another quarter goes to the test of the new side against
that limit, half is left to the comparison side by side. By the union bound the check keeps its
alpha, if the former version would not have got worse meanwhile, which nobody can observe. The
bounds hold at all times (`anytime_proportion`), so it does not matter what made the step begin.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

from serve_app.evidence import (
    Counts,
    LatencyHistogram,
    LatencyRatioTest,
    LimitTest,
    MeanTest,
    Moments,
    RatioTest,
)
from serve_app.evidence.histogram import BOUNDS
from serve_app.evidence.intervals import anytime_proportion
from serve_app.rollout.measure import Measure, percent
from serve_app.rollout.side import Side

_USELESS = 0.95
"""A frozen limit on a rate that is above this says nothing."""


class Finding(NamedTuple):
    """What one limit says at present."""

    limit: str
    """In words."""
    chance: float
    """Of such a record, or a worse one at any time, if the limit is kept."""
    alpha: float
    """It is broken when the chance is not above this."""
    broken: bool


class Check:
    """One limit; this base does nothing, and breaks never."""

    compares: ClassVar[bool] = False
    """Whether it needs a record of the former side."""

    def begin(self, baseline: Side) -> None:
        """What the former side had served before the new one had traffic."""

    def freeze(self, record: Side, new: Side) -> None:
        """From now on the former side has no traffic: this is its record, and that of the new."""

    def update(self, new: Side, former: Side) -> None:
        """Takes the totals of both sides since the new one got traffic."""

    def findings(self) -> tuple[Finding, ...]:
        """What is tested at present."""
        return ()

    def state(self) -> dict[str, Any]:
        """All that has been learnt, ready for JSON."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The reverse of `state`, on a check of the same making."""


class EventLimit(Check):
    """Events of the new side are no more frequent than a limit."""

    def __init__(
        self, measure: Measure, limit: float, words: str, alpha: float, start: Counts | None = None
    ) -> None:
        self._measure, self._words = measure, words
        self._start = start or Counts(0, 0)
        self._test = LimitTest(limit, alpha)

    def update(self, new: Side, former: Side) -> None:
        """Feeds what is new since `start` and the last call."""
        now, start, seen = self._measure.counts(new), self._start, self._test.seen
        self._test.update(
            now.events - start.events - seen.events, now.trials - start.trials - seen.trials
        )

    def findings(self) -> tuple[Finding, ...]:
        """One."""
        test = self._test
        return (Finding(self._words, test.p_value, test.alpha, test.rejected),)

    def state(self) -> dict[str, Any]:
        """All of it: a frozen limit is made while the rollout is on its way."""
        own = {"measure": list(self._measure), "words": self._words, "start": list(self._start)}
        return {**own, "test": self._test.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The reverse of `state`."""
        self._measure, self._words = Measure(*state["measure"]), state["words"]
        self._start, self._test = Counts(*state["start"]), LimitTest.from_state(state["test"])

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The reverse of `state`."""
        found = cls(Measure(*state["measure"]), state["test"]["limit"], "", state["test"]["alpha"])
        found.restore(state)
        return found


class EventRatio(Check):
    """Events of the new side are at most `ratio` times as frequent as those of the former side."""

    compares = True

    def __init__(self, measure: Measure, ratio: float, words: str, alpha: float) -> None:
        self._measure, self._words, self._alpha = measure, words, alpha
        self._test = RatioTest(ratio, alpha / 2)
        self._frozen: EventLimit | None = None

    def freeze(self, record: Side, new: Side) -> None:
        """At most `ratio` times the highest rate that the record does not refute."""
        events, trials = self._measure.counts(record)
        alpha = self._alpha / 4
        limit = self._test.ratio * anytime_proportion(events, trials, 1 - alpha).high
        if limit <= _USELESS:
            words = f"{percent(limit)}, from the former record of {events:,} in {trials:,}"
            start = self._measure.counts(new)
            self._frozen = EventLimit(self._measure, limit, words, alpha, start)

    def update(self, new: Side, former: Side) -> None:
        """Feeds what is new as soon as there is something on both sides."""
        mine, theirs = self._measure.counts(new), self._measure.counts(former)
        fed, those = self._test.candidate, self._test.stable
        if mine.trials > fed.trials and theirs.trials > those.trials:
            self._test.update(
                Counts(mine.events - fed.events, mine.trials - fed.trials),
                Counts(theirs.events - those.events, theirs.trials - those.trials),
            )
        if self._frozen is not None:
            self._frozen.update(new, former)

    def findings(self) -> tuple[Finding, ...]:
        """The comparison, and the frozen limit if there is one."""
        test = self._test
        own = Finding(self._words, test.p_value, test.alpha, test.rejected)
        return (own, *_findings(self._frozen))

    def state(self) -> dict[str, Any]:
        """Those of both tests."""
        return {"test": self._test.state(), "frozen": _state(self._frozen)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The reverse of `state`."""
        self._test = RatioTest.from_state(state["test"])
        self._frozen = _restored(state["frozen"])


class LatencyRatio(Check):
    """A quantile of the new side's latency is at most `ratio` times that of the former side."""

    compares = True

    def __init__(self, quantile: float, ratio: float, words: str, alpha: float) -> None:
        self._words, self._alpha = words, alpha
        self._test = LatencyRatioTest(quantile, ratio, alpha / 2)
        self._new, self._former = LatencyHistogram(), LatencyHistogram()
        self._frozen: EventLimit | None = None

    def begin(self, baseline: Side) -> None:
        """The first threshold comes from before."""
        self._test.learn(baseline.latency)

    def freeze(self, record: Side, new: Side) -> None:
        """At most `ratio` times the slowest quantile that the record does not refute.

        That is the lowest bound above which the share of requests is shown to be 1 - q or less. If
        the true quantile is higher, then the record has refuted that share at the true quantile.
        """
        trials, allowed = round(record.latency.total), 1 - self._test.quantile
        alpha = self._alpha / 4

        def shown(index: int) -> bool:
            slow = record.latency.above(index)
            return anytime_proportion(slow, trials, 1 - alpha).high <= allowed

        index = bisect_left(range(len(BOUNDS)), True, key=shown)
        slowest = self._test.ratio * float(BOUNDS[index]) if index < len(BOUNDS) else float("inf")
        if slowest < BOUNDS[-1]:
            measure = Measure("slow", slowest)
            words = f"{1000 * slowest:.3g} ms, from the former record of {trials:,} requests"
            self._frozen = EventLimit(measure, allowed, words, alpha, measure.counts(new))

    def update(self, new: Side, former: Side) -> None:
        """Feeds what is new as soon as there is something on both sides."""
        mine, theirs = _since(self._new, new.latency), _since(self._former, former.latency)
        if mine.total and theirs.total:
            self._test.update(mine, theirs)
            self._new.merge(mine)
            self._former.merge(theirs)
        if self._frozen is not None:
            self._frozen.update(new, former)

    def findings(self) -> tuple[Finding, ...]:
        """The comparison, and the frozen limit if there is one."""
        test = self._test
        own = Finding(self._words, test.p_value, test.slow.alpha, test.rejected)
        return (own, *_findings(self._frozen))

    def state(self) -> dict[str, Any]:
        """Those of both tests, and what the first was fed with."""
        fed = {"new": self._new.state(), "former": self._former.state()}
        return {"test": self._test.state(), "frozen": _state(self._frozen), **fed}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The reverse of `state`."""
        self._test = LatencyRatioTest.from_state(state["test"])
        self._new = LatencyHistogram.from_state(state["new"])
        self._former = LatencyHistogram.from_state(state["former"])
        self._frozen = _restored(state["frozen"])


class OutcomeMean(Check):
    """Outcomes of the new side are on average no worse than those of the former, but a margin."""

    compares = True

    def __init__(self, margin: float, words: str, alpha: float) -> None:
        self._words = words
        self._test = MeanTest(margin, alpha)
        self._baseline = Moments()

    def begin(self, baseline: Side) -> None:
        """Each side has an interval of its own, so outcomes from before count as well."""
        self._baseline = baseline.outcomes

    def update(self, new: Side, former: Side) -> None:
        """Sets the totals, and looks."""
        self._test.candidate = new.outcomes
        self._test.stable = self._baseline + former.outcomes
        self._test.update(Moments(), Moments())

    def findings(self) -> tuple[Finding, ...]:
        """One; all that is known of the chance is whether it is below alpha."""
        test = self._test
        chance = test.alpha if test.rejected else 1.0
        return (Finding(self._words, chance, test.alpha, test.rejected),)

    def state(self) -> dict[str, Any]:
        """That of the test, and what came before."""
        return {"test": self._test.state(), "baseline": self._baseline.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The reverse of `state`."""
        self._test = MeanTest.from_state(state["test"])
        self._baseline = Moments.from_state(state["baseline"])


def _since(fed: LatencyHistogram, total: LatencyHistogram) -> LatencyHistogram:
    found = LatencyHistogram()
    found.counts += total.counts - fed.counts
    return found


def _findings(check: EventLimit | None) -> tuple[Finding, ...]:
    return check.findings() if check is not None else ()


def _state(check: EventLimit | None) -> dict[str, Any] | None:
    return check.state() if check is not None else None


def _restored(state: Mapping[str, Any] | None) -> EventLimit | None:
    return EventLimit.from_state(state) if state is not None else None
