"""How far a rollout is: the part of its state that is plain numbers and words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from serve_app.domain.control import RolloutState

MOST_BETWEEN_TICKS_S = 2.0
"""A longer time between two ticks means that nobody was watching: it counts for no more."""


@dataclass(slots=True)
class Progress:
    """Changes with every tick. Times are seconds since the epoch, durations seconds."""

    changed_at: float
    """When state or step last changed."""
    since: float
    """When the clock of this step began."""
    ticked_at: float
    state: RolloutState = "pending"
    step: int = -1
    """Index of the step in force; -1 before the first."""
    reason: str = ""
    actor: str = ""
    watched: float = 0.0
    """How long this step was watched: `since` counts wall time, this leaves out absences."""
    heard: bool = False
    """Whether an ingress has reported since the last tick."""
    silent: float = 0.0
    """How long no ingress has reported, while watched."""
    lost: float = 0.0
    """How long a new version with traffic has had no ready replica, while watched."""
    answered_from: int = 0
    """Requests that the new side had answered when this step began."""
    through: int = 0
    """The last outcome that was counted."""

    @property
    def final(self) -> bool:
        """Whether nothing will ever change again."""
        return self.state in ("promoted", "rolled_back")

    def restart(self, now: float) -> None:
        """Starts the clock of a step anew."""
        self.since, self.watched, self.silent, self.lost = now, 0.0, 0.0, 0.0

    def watch(self, now: float, lost: bool) -> None:
        """Time goes on; a clock that was set back stands still."""
        passed = min(max(now - self.ticked_at, 0.0), MOST_BETWEEN_TICKS_S)
        self.ticked_at = now
        self.watched += passed
        self.silent = 0.0 if self.heard else self.silent + passed
        self.heard = False
        self.lost = self.lost + passed if lost else 0.0

    def state_document(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The reverse of `state_document`."""
        return cls(**state)
