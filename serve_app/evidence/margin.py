"""Is the candidate's mean reward too low? May be looked at after every second."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from serve_app.evidence.intervals import Interval, anytime_mean
from serve_app.evidence.moments import Moments

ENOUGH = 100
"""Outcomes of each arm before a limit theorem is believed."""


class MeanTest:
    """Real-valued outcomes, more is better. H0: mean of the candidate >= mean of stable - margin.

    Each arm has an interval of its own, so the shares of traffic may change as they like, while
    means that drift with them would mislead. Valid asymptotically (see `intervals.anytime_width`),
    hence not before `ENOUGH` outcomes per arm. For outcomes that are 0 or 1, count the failures and
    take `RatioTest`, which is exact.
    """

    def __init__(self, margin: float = 0.0, alpha: float = 0.05) -> None:
        """Starts without data.

        Args:
            margin: by how much the candidate may be worse, in units of the outcomes.
            alpha: highest probability of a false alarm, ever.

        Raises:
            ValueError: one of them is out of range.
        """
        if not 0 <= margin < float("inf") or not 0 < alpha < 1:
            raise ValueError(f"no test with a margin of {margin} and an alpha of {alpha}")
        self.margin, self.alpha = margin, alpha
        self.candidate = self.stable = Moments()
        self.rejected = False
        """Whether the candidate is shown to be worse than allowed; stays so."""

    def update(self, candidate: Moments, stable: Moments) -> bool:
        """Takes the outcomes since the last call; returns `rejected`."""
        self.candidate += candidate
        self.stable += stable
        if min(self.candidate.count, self.stable.count) >= ENOUGH and not self.rejected:
            mine, theirs = self.intervals()
            self.rejected = mine.high < theirs.low - self.margin
        return self.rejected

    def intervals(self) -> tuple[Interval, Interval]:
        """Of the candidate's and of the stable arm's mean: both hold, at all times.

        Each arm is assumed to vary at least as much as both together: one that has seen no rare
        reward yet, or that answers the same to everybody, must not pass for one known exactly.
        """
        variance = (self.candidate + self.stable).variance
        confidence = 1 - self.alpha / 2
        mine = anytime_mean(self.candidate, confidence, variance)
        return mine, anytime_mean(self.stable, confidence, variance)

    def state(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        own = {"margin": self.margin, "alpha": self.alpha, "rejected": self.rejected}
        return {**own, "candidate": self.candidate.state(), "stable": self.stable.state()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The reverse of `state`.

        Raises:
            ValueError: it is not a state of this test.
        """
        found = cls(state["margin"], state["alpha"])
        found.candidate = Moments.from_state(state["candidate"])
        found.stable = Moments.from_state(state["stable"])
        found.rejected = bool(state["rejected"])
        return found
