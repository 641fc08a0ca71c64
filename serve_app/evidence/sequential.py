"""Tests on rates of events that may be looked at after every second.

Both are one-sided and speak of harm only: `rejected` means that the limit is broken, with at most
`alpha` probability of ever saying so wrongly. How the evidence is added up stands in `wealth.py`.
Events are errors, answers that differ from those of a shadow, slow requests, wrong labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import log, log1p
from typing import Any, NamedTuple, Self

import numpy as np

from serve_app.evidence.wealth import Floats, Wealth, shifts

_SMALLEST_LIMIT = 1e-9
"""Nothing can be more than infinitely unlikely: a limit of 0 is tested as 1 in 10^9."""


class Counts(NamedTuple):
    """One increment of one arm."""

    events: int
    trials: int


def _checked(alpha: float, counts: tuple[Counts, ...] = ()) -> float:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    for events, trials in counts:
        if not 0 <= events <= trials:
            raise ValueError(f"{events} events in {trials} trials")
    return alpha


@lru_cache
def _limit_alternatives(limit: float) -> tuple[Floats, Floats]:
    base = max(limit, _SMALLEST_LIMIT)
    log_odds = log(base) - log1p(-base)
    # Up to a rate of 99.9 %; a limit that is above this has two alternatives all the same.
    alternatives = log_odds + shifts(max(7.0 - log_odds, 1.0))
    # Logarithms of p and 1 - p from the log odds, without cancellation near 0 and 1.
    happened = -np.logaddexp(0.0, -alternatives) - log(base)
    did_not = -np.logaddexp(0.0, alternatives) - log1p(-base)
    return happened, did_not


def limit_factors(events: Floats | float, trials: Floats | float, limit: float) -> Floats:
    """Log likelihood ratios of Bernoulli(p1) against Bernoulli(limit), shape [..., POINTS].

    For p1 > limit the expected ratio of a trial rises with its true p and is 1 at the limit, so it
    is at most 1 for all p <= limit. Trials may differ and depend on the past.
    """
    happened, did_not = _limit_alternatives(limit)
    found: Floats = events * happened + (trials - events) * did_not
    return found


_LOG_ODDS_RATIOS = shifts(12.0)
_EXCESS = np.expm1(_LOG_ODDS_RATIOS)


def ratio_factors(
    candidate: tuple[Floats | float, Floats | float],
    stable: tuple[Floats | float, Floats | float],
    ratio: float,
) -> Floats:
    """Log likelihood ratios for "the candidate has more events than ratio x stable".

    Given that an event happened, it is the candidate's with probability q0 = ratio n_c / (ratio n_c
    + n_s) at the border of H0. An alternative multiplies the odds of that by m. With a = 1 + q0
    (m - 1), an event of the candidate is worth m / a and one of stable 1 / a, so an increment is
    worth m^x_c / a^(x_c + x_s).

    Why its expectation is at most 1 whenever p_c <= ratio p_s, also where events are frequent and
    the conditional law is not binomial: a trial of the candidate is on average worth
    1 + p_c (m - 1)(1 - q0) / a, one of stable 1 - p_s (m - 1) q0 / a. By 1 + x <= e^x and
    n_s q0 = ratio n_c (1 - q0), the product over all trials is at most
    exp((m - 1)(1 - q0) n_c (p_c - ratio p_s) / a) <= 1. (For ratio = 1 it also follows from
    Hoeffding 1963, theorem 4: the hypergeometric law is below the binomial one in convex order.)
    Rates may change within an increment, if their means obey H0.

    Args:
        candidate: events x_c and trials n_c, each of shape [..., 1] or a number.
        stable: the same of the stable arm.
        ratio: how many times as frequent the candidate's events may be.

    Returns:
        Shape [..., POINTS]; all 0 where only one arm had trials: such data say nothing.
    """
    (events, trials), (stable_events, stable_trials) = candidate, stable
    weighted = ratio * trials
    share = weighted / np.maximum(weighted + stable_trials, 1e-300)
    found: Floats = events * _LOG_ODDS_RATIOS - (events + stable_events) * np.log1p(share * _EXCESS)
    return found


class LimitTest:
    """Is the rate of events above a limit? H0: every trial has p <= limit."""

    def __init__(self, limit: float, alpha: float = 0.05) -> None:
        """Starts without data.

        Args:
            limit: highest rate that is allowed, 0 <= limit < 1.
            alpha: highest probability of a false alarm, ever.

        Raises:
            ValueError: one of them is out of range.
        """
        if not 0 <= limit < 1:
            raise ValueError(f"a limit must lie in [0, 1), not at {limit}")
        self.limit, self.alpha = limit, _checked(alpha)
        self.seen = Counts(0, 0)
        self._wealth = Wealth()

    @property
    def p_value(self) -> float:
        """Valid at all times."""
        return self._wealth.p_value

    @property
    def rejected(self) -> bool:
        """Whether the limit is shown to be broken; stays so."""
        return self.p_value <= self.alpha

    def update(self, events: int, trials: int) -> bool:
        """Takes what has come since the last call; returns `rejected`.

        Raises:
            ValueError: not 0 <= events <= trials.
        """
        _checked(self.alpha, (Counts(events, trials),))
        if trials:
            self.seen = Counts(self.seen.events + events, self.seen.trials + trials)
            self._wealth.grow(limit_factors(events, trials, self.limit))
        return self.rejected

    def state(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        own = {"limit": self.limit, "alpha": self.alpha, "seen": list(self.seen)}
        return {**own, **self._wealth.state()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The reverse of `state`.

        Raises:
            ValueError: it is not a state of this test.
        """
        found = cls(state["limit"], state["alpha"])
        found.seen = Counts(*state["seen"])
        found._wealth = Wealth.from_state(state)
        return found


class RatioTest:
    """Has the candidate too many events? H0: its rate <= ratio x the stable arm's rate."""

    def __init__(self, ratio: float = 1.0, alpha: float = 0.05) -> None:
        """Starts without data.

        Args:
            ratio: how many times as frequent the candidate's events may be, at least 1.
            alpha: highest probability of a false alarm, ever.

        Raises:
            ValueError: one of them is out of range.
        """
        if not 1 <= ratio < float("inf"):
            raise ValueError(f"a ratio must be a number of at least 1, not {ratio}")
        self.ratio, self.alpha = ratio, _checked(alpha)
        self.candidate = self.stable = Counts(0, 0)
        self._wealth = Wealth()

    @property
    def p_value(self) -> float:
        """Valid at all times."""
        return self._wealth.p_value

    @property
    def rejected(self) -> bool:
        """Whether the candidate is shown to be worse than allowed; stays so."""
        return self.p_value <= self.alpha

    def update(self, candidate: Counts, stable: Counts) -> bool:
        """Takes what has come since the last call; returns `rejected`.

        Raises:
            ValueError: not 0 <= events <= trials.
        """
        _checked(self.alpha, (candidate, stable))
        self.candidate = Counts(*map(sum, zip(self.candidate, candidate, strict=True)))
        self.stable = Counts(*map(sum, zip(self.stable, stable, strict=True)))
        if candidate.trials and stable.trials:
            self._wealth.grow(ratio_factors(candidate, stable, self.ratio))
        return self.rejected

    def state(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        own = {"ratio": self.ratio, "alpha": self.alpha}
        arms = {"candidate": list(self.candidate), "stable": list(self.stable)}
        return {**own, **arms, **self._wealth.state()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The reverse of `state`.

        Raises:
            ValueError: it is not a state of this test.
        """
        found = cls(state["ratio"], state["alpha"])
        found.candidate = Counts(*state["candidate"])
        found.stable = Counts(*state["stable"])
        found._wealth = Wealth.from_state(state)
        return found
