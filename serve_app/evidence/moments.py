"""Count, mean and variance of outcomes, as they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, slots=True)
class Moments:
    """What is kept of a list of numbers. Two of them add up (Chan, Golub, LeVeque 1983)."""

    count: int = 0
    total: float = 0.0
    deviations: float = 0.0
    """Sum of the squared distances from the mean."""

    @classmethod
    def of(cls, outcomes: ArrayLike) -> Self:
        """Those of an array.

        Raises:
            ValueError: one of them is not finite.
        """
        values = np.asarray(outcomes, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError("outcomes must be finite numbers")
        if not values.size:
            return cls()
        return cls(values.size, float(values.sum()), float(values.var()) * values.size)

    @classmethod
    def of_counts(cls, successes: int, trials: int) -> Self:
        """Those of outcomes that are 0 or 1.

        Raises:
            ValueError: not 0 <= successes <= trials.
        """
        if not 0 <= successes <= trials:
            raise ValueError(f"{successes} successes in {trials} trials")
        spread = successes * (trials - successes) / trials if trials else 0.0
        return cls(trials, float(successes), spread)

    @property
    def mean(self) -> float:
        """0 without outcomes."""
        return self.total / self.count if self.count else 0.0

    @property
    def variance(self) -> float:
        """Around the mean, divided by the count; 0 without outcomes."""
        return self.deviations / self.count if self.count else 0.0

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        between = 0.0
        if self.count and other.count:
            between = (self.mean - other.mean) ** 2 * self.count * other.count / count
        deviations = self.deviations + other.deviations + between
        return Moments(count, self.total + other.total, deviations)

    def state(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {"count": self.count, "total": self.total, "deviations": self.deviations}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The reverse of `state`."""
        return cls(int(state["count"]), float(state["total"]), float(state["deviations"]))
