"""What the admin API takes and gives, where that is not a value of the domain itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from serve_app.domain.control import Outcome, Receipt, Revision, Rollout, Standing
from serve_app.domain.release import Release
from serve_app.domain.tensor import Name

MAX_OUTCOMES = 1000

_REASON = Field("", max_length=2000, description="why; kept with the revision")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ReleaseChange(_Body):
    """Another release, whole."""

    release: Release
    reason: str = _REASON


class TrafficChange(_Body):
    """Other weights; versions that are not named get none."""

    weights: Mapping[Name, int] = Field(
        min_length=1, description="version -> percent, together 100"
    )
    reason: str = _REASON


class Reason(_Body):
    """Why somebody acts on a rollout."""

    reason: str = _REASON


class Rollback(_Body):
    """Which revision to go back to."""

    revision: int | None = Field(None, ge=1, description="null: the one before the last change")
    reason: str = _REASON


class OutcomeReport(_Body):
    """What became of answers."""

    outcomes: tuple[Outcome, ...] = Field(min_length=1, max_length=MAX_OUTCOMES)


class Standings(BaseModel):
    """All models whose release is known."""

    models: tuple[Standing, ...]


class Revisions(BaseModel):
    """A page of revisions, newest first."""

    revisions: tuple[Revision, ...]
    before: int | None = Field(description="ask for the next page with this; null at the end")


class Rollouts(BaseModel):
    """Rollouts, newest first."""

    rollouts: tuple[Rollout, ...]


class Receipts(BaseModel):
    """What was done with each outcome, in order."""

    receipts: tuple[Receipt, ...]


class Disagreements(BaseModel):
    """Shadow answers that differed, newest first."""

    disagreements: tuple[Mapping[str, Any], ...]
