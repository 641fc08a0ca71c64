"""One rollout on its way: its machine in this process, its row in SQL, and what is between them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime

from serve_app.domain.control import Author, Rollout
from serve_app.evidence import Moments
from serve_app.rollout import Change, RolloutMachine, Terms, promoted_labels
from serve_app.store.revisions import RevisionDraft, StoredRevision
from serve_app.store.rollouts import StoredRollout

logger = logging.getLogger(__name__)

Totals = Mapping[str, Moments]
"""Version -> all outcomes since the rollout began."""


class Course:
    """One rollout."""

    def __init__(self, row: StoredRollout, machine: RolloutMachine) -> None:
        self.row, self.machine = row, machine
        self.unsaved: Change | None = None
        """What the machine has done already and the database does not know yet."""
        self.dirty = False
        self.saved_at = 0.0
        self._counted: Totals | None = None
        """The outcomes that the machine knows of, or that were there before it."""
        self._through = machine.progress.through

    @classmethod
    def resumed(cls, row: StoredRollout, live: StoredRevision | None, now: float) -> Course:
        """One that a former process has left.

        If what its machine knew cannot be read, such as after an upgrade, it begins anew, with the
        weights of before. Nobody knows any more how the new versions have done.

        Args:
            row: as it was stored.
            live: the revision in force.
            now: seconds since the epoch.
        """
        try:
            return cls(row, RolloutMachine.from_state(row.memory))
        except ValueError as error:
            logger.warning("rollout %d begins anew: %s", row.id, error, extra={"action": "rollout"})
        terms = Terms(
            origin=row.origin,
            target=row.target,
            strategy=row.strategy,
            outcomes=None if live is None else live.release.outcomes,
        )
        return cls(row, RolloutMachine(row.model, terms, now))

    def agrees(self, row: StoredRollout) -> bool:
        """Whether a row that was read again is that of this rollout, where its machine is.

        While the database does not know yet what the machine has done, that is not asked.
        """
        if row.id != self.row.id:
            return False
        progress = self.machine.progress
        return self.unsaved is not None or (row.state, row.step) == (progress.state, progress.step)

    def copy(self) -> Course:
        """Another one that is as far, to try something out."""
        copy = Course(self.row, RolloutMachine.from_state(self.machine.to_state()))
        copy._counted, copy._through = self._counted, self._through
        return copy

    def current(self) -> Rollout:
        """The rollout as it is at this moment."""
        progress = self.machine.progress
        return public(self.row).model_copy(
            update={
                "state": progress.state,
                "step": progress.step,
                "reason": progress.reason,
                "evidence": self.machine.evidence(),
            }
        )

    def record(self, totals: Totals) -> None:
        """Hands on what has been reported since the last time."""
        if self._counted is None:
            self._counted = totals
            return
        new = {version: _less(now, self._counted.get(version)) for version, now in totals.items()}
        count = sum(each.count for each in new.values())
        if count > 0:
            self._through += count
            self.dirty = self.machine.record(new, self._through) or self.dirty
            self._counted = totals

    def row_now(self) -> StoredRollout:
        """The row with all that the machine knows now."""
        return self.row.model_copy(
            update={"memory": self.machine.to_state(), "evidence": self.machine.evidence()}
        )

    def row_after(self, change: Change, now: float) -> StoredRollout:
        """The row after a change."""
        moved = change.step != self.row.step
        return self.row.model_copy(
            update={
                "state": change.state,
                "step": change.step,
                "reason": change.reason,
                "evidence": change.evidence,
                "memory": self.machine.to_state(),
                "step_began_at": moment(now) if moved else self.row.step_began_at,
            }
        )

    def row_given_way(self, author: Author, now: float) -> StoredRollout:
        """The row once somebody has put other weights in force.

        The machine itself stays as it is until that has been stored. One that has ended, which the
        database does not know yet, has ended as it did.
        """
        if self.unsaved is not None and self.machine.progress.final:
            return self.row_after(self.unsaved, now)
        copy = self.copy()
        return copy.row_after(copy.machine.give_way(author, now), now)

    def draft(self, live: StoredRevision, change: Change) -> RevisionDraft:
        """The revision that puts a change in force, and all changes that are not stored yet."""
        release = live.release
        weights = self.machine.weights
        if any(release.weights.get(version, 0) != share for version, share in weights.items()):
            release = release.with_weights(weights)
        if change.state == "promoted":
            labels = promoted_labels(self.machine.terms, release.labels)
            release = release.model_copy(update={"labels": labels})
        author = Author(actor=change.actor, reason=change.reason)
        return RevisionDraft(live.model, release, author, live.config_digest)


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as a time."""
    return datetime.fromtimestamp(seconds, UTC)


def public(row: StoredRollout) -> Rollout:
    """What others than ModelRouter see of a row."""
    return Rollout.model_validate(row.model_dump(include=set(Rollout.model_fields)))


def _less(now: Moments, before: Moments | None) -> Moments:
    """What was added to `before`; the reverse of adding moments up."""
    if before is None or not before.count:
        return now
    count = now.count - before.count
    if count <= 0:
        return Moments()
    total = now.total - before.total
    between = (total / count - before.mean) ** 2 * count * before.count / now.count
    return Moments(count, total, max(0.0, now.deviations - before.deviations - between))
