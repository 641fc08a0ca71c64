"""The arithmetic that all sequential tests share: wealth won by betting against a hypothesis.

Someone starts with 1 and bets, before each increment of data, against a hypothesis H0, at odds that
are fair or worse while H0 holds. Then wealth is a non-negative supermartingale, and it ever reaches
1/alpha with probability at most alpha (Ville 1939). So one may look after every increment, stop
whenever one likes, and 1 / (highest wealth so far) is a p-value at all times. Such a process is
called an e-process (Ramdas, Grünwald, Vovk, Shafer 2023).

The stake is spread twice. *Over alternatives*: each point of a grid of effects is a bet of its own
(Robbins 1970), so nobody has to say beforehand how bad a candidate will be. *Over the start*: a
part of the stake is held back and placed later, so that a candidate that was fine for an hour and
then breaks meets a bet which has not lost everything in that hour. Sums of supermartingales are
supermartingales, so both keep the guarantee.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, log, log1p
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

POINTS = 32
"""Alternatives in a grid: neighbours differ by about a fifth of their log odds ratio."""


def shifts(largest: float) -> Floats:
    """Log odds ratios of the alternatives: from 5 % more to `largest`, in equal proportions."""
    return np.geomspace(0.05, largest, POINTS)


def log_stake(increment: int) -> float:
    """Logarithm of the part of the stake that is placed just before this increment (0, 1, ...).

    What is still held back after n increments is 1 / (1 + ln(1 + n)): 41 % is placed at once, and
    a change after n costs about ln n + 2 ln ln n of log wealth, 9.5 after 300, 16.4 after 86,400.
    """
    now, then = 1 + log1p(increment), 1 + log1p(increment + 1)
    return log((then - now) / (now * then))


def step(wealth: Floats, increment: int, log_factors: Floats) -> Floats:
    """Log wealth per alternative after one increment.

    Args:
        wealth: before it, shape [..., POINTS].
        increment: how many came before.
        log_factors: log likelihood ratios of this increment, same shape.
    """
    placed = log_stake(increment) - log(POINTS)
    grown: Floats = np.logaddexp(wealth, placed) + log_factors
    return grown


def total(wealth: Floats) -> Floats:
    """Log of the wealth in all bets, shape [...]. What is held back is left out: that is safe."""
    found: Floats = np.logaddexp.reduce(wealth, axis=-1)
    return found


class Wealth:
    """Log wealth of one test, with the highest value that it has had."""

    def __init__(self) -> None:
        self._wealth: Floats = np.full(POINTS, -np.inf)
        self._increments = 0
        self.peak = 0.0
        """Highest log wealth so far; 0 is what everybody starts with."""

    @property
    def p_value(self) -> float:
        """Valid at all times, however often one has looked."""
        return exp(-self.peak)

    def grow(self, log_factors: Floats) -> None:
        """Takes the log likelihood ratios of one increment, shape [POINTS]."""
        self._wealth = step(self._wealth, self._increments, log_factors)
        self._increments += 1
        self.peak = max(self.peak, float(total(self._wealth)))

    def state(self) -> dict[str, Any]:
        """What survives a restart, ready for JSON."""
        wealth = self._wealth.tolist() if self._increments else []
        return {"increments": self._increments, "peak": self.peak, "wealth": wealth}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Wealth:
        """The reverse of `state`.

        Raises:
            ValueError: it has another number of alternatives.
        """
        found = cls()
        if state["increments"]:
            found._wealth = np.asarray(state["wealth"], dtype=np.float64)
        if found._wealth.shape != (POINTS,):
            raise ValueError(f"a state of {found._wealth.size} alternatives, not {POINTS}")
        found._increments = int(state["increments"])
        found.peak = float(state["peak"])
        return found
