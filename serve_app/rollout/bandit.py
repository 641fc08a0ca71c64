"""Weights that follow the reported outcomes: when, which, and why."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any, NamedTuple, Self

import numpy as np

from serve_app.domain.release import Release
from serve_app.evidence import Moments, best_probabilities, percents
from serve_app.rollout.guards import mean_sign

NOISE = 3
"""Points by which some weight must move: less is the noise of the draw, not worth a revision."""


class Draw(NamedTuple):
    """Weights to be put in force."""

    weights: dict[str, int]
    reason: str
    """In words."""


class BanditClock:
    """Decides for one model when new weights are drawn. Not while a rollout is going on.

    Args:
        seed: where chance comes from; with the number of the draw it makes every draw repeatable.
        now: seconds since the epoch; the first draw is one interval later.
    """

    def __init__(self, seed: int, now: float) -> None:
        self._seed, self._drawn_at, self._draws = seed, now, 0

    def due(self, now: float, release: Release) -> bool:
        """Whether it is time to collect outcomes and draw."""
        return release.bandit is not None and now - self._drawn_at >= release.bandit.every_s

    def draw(self, now: float, release: Release, outcomes: Mapping[str, Moments]) -> Draw | None:
        """New weights in proportion to the probability of being best, within the bounds.

        Candidates without weight were switched off by somebody and stay so. Bounds that cannot be
        met by so many candidates are widened just enough.

        Args:
            now: seconds since the epoch.
            release: the live one.
            outcomes: version -> all that counts; for labels the share of rows that were right.

        Returns:
            None if it is not due, there is nothing to choose from, or nothing moves.
        """
        bandit, its = release.bandit, release.outcomes
        arms = [each.version for each in release.candidates if each.weight]
        if bandit is None or its is None or not self.due(now, release):
            return None
        self._drawn_at = now
        self._draws += 1
        if len(arms) < 2:
            return None
        found = [_signed(outcomes.get(arm, Moments()), mean_sign(its)) for arm in arms]
        generator = np.random.default_rng([self._seed, self._draws])
        shares = best_probabilities(found, generator, binary=its.kind == "label")
        floor = min(bandit.floor, 100 // len(arms))
        ceiling = max(bandit.ceiling, ceil(100 / len(arms)))
        drawn = dict(zip(arms, percents(shares, floor, ceiling), strict=True))
        weights = {version: drawn.get(version, 0) for version in release.weights}
        if max(abs(weights[name] - weight) for name, weight in release.weights.items()) < NOISE:
            return None
        parts = [
            f"version {arm} with {100 * share:.0f} % ({its.count:,} outcomes)"
            for arm, share, its in zip(arms, shares, found, strict=True)
        ]
        return Draw(weights, f"probability of being the best: {', '.join(parts)}")

    def state(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {"seed": self._seed, "drawn_at": self._drawn_at, "draws": self._draws}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The reverse of `state`."""
        found = cls(state["seed"], state["drawn_at"])
        found._draws = state["draws"]
        return found


def _signed(outcomes: Moments, sign: int) -> Moments:
    return Moments(outcomes.count, sign * outcomes.total, outcomes.deviations)
