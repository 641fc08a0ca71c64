"""The port between whoever changes releases (API, command line) and ModelRouter, who owns them.

Values are plain pydantic models: they cross processes and become JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serve_app.domain.release import Release

RolloutState = Literal["pending", "progressing", "paused", "promoted", "rolled_back"]
Steering = Literal["promote", "pause", "resume", "rollback"]
ReceiptStatus = Literal["counted", "pending", "duplicate", "late"]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Author(_Answer):
    """Who changes something, and why."""

    actor: str = Field(max_length=255)
    reason: str = Field("", max_length=2000)


class Revision(_Answer):
    """One immutable state of a model's release."""

    model: str
    number: int = Field(description="grows by one with each change of this model; the ETag")
    created_at: datetime
    actor: str
    reason: str
    release: Release
    changes: tuple[str, ...] = Field(description="what is different from the one before, in words")
    config_digest: str = Field(description="of the release in the config that it comes from")


class Rollout(_Answer):
    """One change of weights on its way."""

    id: int
    model: str
    state: RolloutState
    reason: str = Field(description="why it is in this state, in words")
    step: int = Field(description="index of the step in force")
    steps: tuple[int, ...] = Field(description="percent of the way at each step")
    origin: Mapping[str, int] = Field(description="the weights that it began with")
    target: Mapping[str, int] = Field(description="the weights that it goes to")
    created_at: datetime
    changed_at: datetime
    evidence: Mapping[str, Any] = Field(description="per guard: what was counted, and how sure")


class Standing(_Answer):
    """Where the requests of one model go now."""

    revision: Revision
    rollout: Rollout | None = Field(description="the one that is going on")


class Outcome(_Answer):
    """What became of one answer; exactly one of the three is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request_id: str = Field(min_length=1, max_length=128)
    label: int | Annotated[tuple[int, ...], Field(min_length=1)] | None = Field(
        None, description="the true class of each row"
    )
    number: float | None = Field(None, allow_inf_nan=False)
    reward: float | None = Field(None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [each for each in (self.label, self.number, self.reward) if each is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of label, number and reward.")
        return self


class Receipt(_Answer):
    """What was done with one outcome."""

    request_id: str
    status: ReceiptStatus


class Control(Protocol):
    """Reads and changes releases. Implementations: a handle of ModelRouter, and a fake in tests.

    Every method raises ModelNotFound for an unknown model and StoreUnavailable when the database
    cannot be used.
    """

    async def standings(self) -> Sequence[Standing]:
        """What is in force, model by model; a model whose release is not known yet is left out."""
        ...

    async def release(self, model: str) -> Revision:
        """The live release."""
        ...

    async def change(
        self,
        model: str,
        release: Release,
        author: Author,
        expected: int | None,
        *,
        at_once: bool = False,
    ) -> Revision:
        """Puts another release in force; new weights go by its strategy.

        Args:
            model: whose.
            release: all of it.
            author: who, and why.
            expected: the revision that the author saw; None overwrites whatever there is.
            at_once: whatever the strategy; a rollout that is going on ends.

        Raises:
            InvalidInput: the release names what the model does not have.
            RevisionConflict: another revision is in force.
            NotReady: a version or a label would get traffic without a ready replica.
        """
        ...

    async def revisions(self, model: str, limit: int, before: int | None) -> Sequence[Revision]:
        """The newest revisions below `before`, newest first."""
        ...

    async def rollback(
        self, model: str, number: int | None, author: Author, expected: int | None
    ) -> Revision:
        """Puts an earlier release in force at once: this one, or the one before the last change.

        Raises:
            RevisionNotFound: there is no such revision.
            RevisionConflict: see `change`.
        """
        ...

    async def rollouts(self, model: str, limit: int) -> Sequence[Rollout]:
        """The newest rollouts, newest first; the first may still be going on."""
        ...

    async def steer(self, model: str, verb: Steering, author: Author) -> Rollout:
        """Acts on the rollout that is going on.

        Raises:
            Conflict: there is none, or it is not in a state for this.
        """
        ...

    async def record(self, model: str, outcomes: Sequence[Outcome]) -> Sequence[Receipt]:
        """Takes reported outcomes.

        Raises:
            InvalidInput: the model's release asks for outcomes of another kind, or for none.
        """
        ...

    async def report(self, model: str) -> Mapping[str, Any]:
        """The comparison of the arms, with intervals and a verdict."""
        ...

    async def disagreements(self, model: str, limit: int) -> Sequence[Mapping[str, Any]]:
        """Sampled shadow answers that differed, newest first."""
        ...
