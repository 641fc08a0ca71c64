"""What a rollout is about: fixed while it lasts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

from serve_app.domain.release import Outcomes, Strategy
from serve_app.rollout.weights import gaining, interpolate, losing


class Terms(BaseModel):
    """From where to where, and how.

    Raises:
        pydantic.ValidationError: weights that are not 100 in all, or equal, or a strategy without
            steps.
    """

    model_config = ConfigDict(frozen=True)

    origin: Mapping[str, int]
    """Version -> percent when it begins."""
    target: Mapping[str, int]
    """Version -> percent at its end."""
    strategy: Strategy
    outcomes: Outcomes | None = None
    """What is reported about answers, if the release says so."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        interpolate(self.origin, self.target, 100)
        if not self.new or not self.strategy.plan:
            raise ValueError("a rollout needs other weights than there are, and steps.")
        return self

    @property
    def new(self) -> tuple[str, ...]:
        """The versions that gain weight."""
        return gaining(self.origin, self.target)

    @property
    def former(self) -> tuple[str, ...]:
        """The versions that lose weight."""
        return losing(self.origin, self.target)

    @property
    def steps(self) -> tuple[int, ...]:
        """Percent of the way at each step."""
        return self.strategy.plan

    @property
    def names(self) -> tuple[str, str]:
        """Of the new and of the former side, such as "version 2" and "versions 1 and 3"."""
        return named(self.new), named(self.former)

    def weights(self, step: int) -> dict[str, int]:
        """Version -> percent at a step; at -1, before the first one, those of the origin."""
        return interpolate(self.origin, self.target, self.steps[step] if step >= 0 else 0)

    def compared(self, step: int) -> bool:
        """Whether the former side has traffic at this step."""
        weights = self.weights(step)
        return any(weights[name] for name in self.former)


def named(versions: tuple[str, ...]) -> str:
    """Such as "version 2" or "versions 1, 2 and 3"."""
    if len(versions) == 1:
        return f"version {versions[0]}"
    return f"versions {', '.join(versions[:-1])} and {versions[-1]}"


def promoted_labels(terms: Terms, labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of a release whose rollout is promoted.

    `stable` moves to the version of `canary` if `canary` is on a version that gained weight and
    `stable` on one that has none left. `canary` stays where it is, so that nobody who calls it
    meets an unknown label; the next change puts it on the next version. No other label ever moves.
    """
    stable, canary = labels.get("stable"), labels.get("canary")
    if canary in terms.new and stable in terms.former and not terms.target.get(stable or "", 0):
        return {**labels, "stable": str(canary)}
    return dict(labels)
