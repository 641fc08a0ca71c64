"""The rollouts that are going on: machines in this process, rows in SQL, and how both stay one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from serve_app.domain.arms import IngressReport
from serve_app.domain.control import Author, Rollout, Steering
from serve_app.domain.release import Release
from serve_app.errors import Conflict, StoreUnavailable
from serve_app.evidence import Moments
from serve_app.rollout import Change, RolloutMachine, Terms, promoted_labels
from serve_app.store.releases import ReleaseStore
from serve_app.store.revisions import RevisionDraft, StoredRevision
from serve_app.store.rollouts import RolloutDraft, StoredRollout

logger = logging.getLogger(__name__)

SAVE_S = 1.0
"""How often what a rollout has learnt is stored: so much is lost when its owner dies."""

Totals = Mapping[str, Moments]
"""Version -> all outcomes since the rollout began."""


class Moved(NamedTuple):
    """What a rollout has done."""

    revision: StoredRevision | None
    """The new revision, if one could be stored."""
    weights: bool
    """Whether other weights are in force, stored or not."""


class _Course:
    """One rollout on its way."""

    def __init__(self, row: StoredRollout, machine: RolloutMachine) -> None:
        self.row, self.machine = row, machine
        self.counted: Totals | None = None
        """The outcomes that the machine knows of, or that were there before it."""
        self.through = machine.progress.through
        self.unsaved: Change | None = None
        """What the machine has done already and the database does not know yet."""
        self.dirty = False
        self.saved_at = 0.0


class Rollouts:
    """At most one per model. Belongs to one event loop; its owner makes one change at a time."""

    def __init__(self, store: ReleaseStore, publish: Callable[[], None]) -> None:
        """Knows of none yet.

        Args:
            store: where they are kept.
            publish: called when `weights` answers something new that must not wait for the store.
        """
        self._store, self._publish = store, publish
        self._courses: dict[str, _Course] = {}

    async def open(self) -> None:
        """Goes on with those that a former process has left."""
        self._courses = {
            model: _Course(row, RolloutMachine.from_state(row.memory))
            for model, row in (await self._store.active_rollouts()).items()
        }

    def models(self) -> list[str]:
        """Those with a rollout."""
        return list(self._courses)

    def going_on(self, model: str) -> bool:
        """Whether a model has one."""
        return model in self._courses

    def weights(self, model: str) -> Mapping[str, int] | None:
        """What is in force by a rollout, whether or not the database knows it already."""
        course = self._courses.get(model)
        return None if course is None else course.machine.weights

    def needed(self, before: Release, after: Release, deployed: Collection[str]) -> bool:
        """Whether going from one release to the other takes a rollout.

        Not where a version that has traffic is not deployed any more: nothing to go back to.
        """
        gains = any(after.weights[v] > before.weights.get(v, 0) for v in after.serving)
        return bool(after.strategy.plan) and gains and before.serving <= set(deployed)

    def observe(self, report: IngressReport) -> None:
        """Hears what an ingress has counted."""
        models = {key.model for key in (*report.arms, *report.shadows)}
        for model, course in self._courses.items():
            # One that has nothing for this model says that its ingress is alive.
            try:
                new = course.machine.observe(report)
            except ValueError as error:
                logger.warning("report refused: %s", error, extra={"action": "rollout"})
                continue
            course.dirty = course.dirty or (new and model in models)

    async def begin(
        self,
        draft: RevisionDraft,
        target: Release,
        before: StoredRevision,
        expected: int | None,
        now: float,
    ) -> StoredRevision:
        """Begins a rollout; one that is going on gives way.

        Args:
            draft: the new release with the weights of now.
            target: the same with the weights that are wanted.
            before: what is in force.
            expected: the revision that the author saw.
            now: seconds since the epoch.
        """
        terms = Terms(
            origin=draft.release.weights,
            target=target.weights,
            strategy=target.strategy,
            outcomes=target.outcomes,
        )
        machine = RolloutMachine(draft.model, terms, now)
        progress = machine.progress
        opens = RolloutDraft(
            model=draft.model,
            state=progress.state,
            reason=progress.reason,
            steps=terms.steps,
            origin=terms.origin,
            origin_revision=before.number,
            target=terms.target,
            strategy=terms.strategy,
            step_began_at=_time(now),
            step=progress.step,
            memory=machine.to_state(),
        )
        written = await self._store.append(
            draft, expected, saves=self._given_way(draft, now), opens=opens
        )
        if written.rollout is not None:
            self._courses[draft.model] = _Course(written.rollout, machine)
        return written.revision

    async def append(
        self, draft: RevisionDraft, expected: int | None, now: float
    ) -> StoredRevision:
        """Puts a release in force without a rollout; one that is going on gives way."""
        written = await self._store.append(draft, expected, saves=self._given_way(draft, now))
        self._courses.pop(draft.model, None)
        return written.revision

    async def tick(
        self,
        model: str,
        live: StoredRevision,
        ready: Collection[str],
        totals: Totals | None,
        now: float,
    ) -> Moved:
        """Looks at one rollout, and does what it decides."""
        course = self._courses[model]
        if totals is not None:
            self._record(course, totals)
        change = course.unsaved or course.machine.tick(now, ready)
        if change is None:
            return Moved(None, weights=False)
        return await self._carry_out(model, course, live, change, now)

    async def save(self, now: float) -> None:
        """Stores what has been learnt since the last time.

        Raises:
            StoreUnavailable: to be tried again.
        """
        for course in self._courses.values():
            if course.dirty and course.unsaved is None and now - course.saved_at >= SAVE_S:
                await self._save(course, now)

    async def steer(
        self,
        model: str,
        live: StoredRevision,
        verb: Steering,
        author: Author,
        ready: Collection[str],
        now: float,
    ) -> tuple[Rollout, Moved]:
        """Does what somebody wants.

        Raises:
            Conflict: there is no rollout, or it is not in a state for this.
        """
        course = self._courses.get(model)
        if course is None or course.machine.progress.final:
            raise Conflict(f"model {model!r} has no rollout that is going on")
        try:
            change = course.machine.steer(verb, author, now, ready)
        except ValueError as error:
            raise Conflict(f"{verb} of the rollout of {model!r}: {error}") from error
        moved = await self._carry_out(model, course, live, change, now)
        return course.row, moved

    def current(self, model: str) -> Rollout | None:
        """The one that is going on, as it is at this moment."""
        course = self._courses.get(model)
        if course is None:
            return None
        progress = course.machine.progress
        return _public(course.row).model_copy(
            update={
                "state": progress.state,
                "step": progress.step,
                "reason": progress.reason,
                "evidence": course.machine.evidence(),
            }
        )

    async def newest(self, model: str, limit: int) -> Sequence[Rollout]:
        """The newest rollouts, with the evidence of this moment where one is going on."""
        found = [_public(each) for each in await self._store.rollouts(model, limit)]
        current = self.current(model)
        if current is None or not found or found[0].id != current.id:
            return found
        return [current, *found[1:]]

    def _record(self, course: _Course, totals: Totals) -> None:
        """Hands on what has been reported since the last time."""
        if course.counted is None:
            course.counted = totals
            return
        new = {version: _less(now, course.counted.get(version)) for version, now in totals.items()}
        count = sum(each.count for each in new.values())
        if count > 0:
            course.through += count
            course.dirty = course.machine.record(new, course.through) or course.dirty
            course.counted = totals

    async def _carry_out(
        self, model: str, course: _Course, live: StoredRevision, change: Change, now: float
    ) -> Moved:
        """Stores what the machine has done; traffic that goes back does not wait for that."""
        first = course.unsaved is None
        course.unsaved = change
        if first and change.state == "rolled_back":
            self._publish()
        row = _followed(course, change, now)
        draft = _draft(course, live, change)
        revision = None
        try:
            if draft.release == live.release:
                course.row = await self._store.save_rollout(row)
            else:
                written = await self._store.append(draft, live.number, saves=row)
                revision, course.row = written.revision, written.rollout or row
        except StoreUnavailable:
            logger.warning(
                "the database does not take what a rollout did",
                extra={"action": "rollout", "model": model},
            )
            return Moved(None, weights=first and change.weights is not None)
        course.unsaved, course.saved_at, course.dirty = None, now, False
        logger.info(
            "%s: %s", change.state, change.reason, extra={"action": "rollout", "model": model}
        )
        if course.machine.progress.final:
            del self._courses[model]
        return Moved(revision, weights=change.weights is not None)

    async def _save(self, course: _Course, now: float) -> None:
        row = course.row.model_copy(
            update={"memory": course.machine.to_state(), "evidence": course.machine.evidence()}
        )
        course.row = await self._store.save_rollout(row)
        course.saved_at, course.dirty = now, False

    def _given_way(self, draft: RevisionDraft, now: float) -> StoredRollout | None:
        """The row of the rollout that ends because of this change."""
        course = self._courses.get(draft.model)
        if course is None or course.machine.progress.final:
            return None
        # The machine itself must stay as it is until the change has been stored.
        copy = _Course(course.row, RolloutMachine.from_state(course.machine.to_state()))
        return _followed(copy, copy.machine.give_way(draft.author, now), now)


def _followed(course: _Course, change: Change, now: float) -> StoredRollout:
    """The row after a change."""
    moved = change.step != course.row.step
    return course.row.model_copy(
        update={
            "state": change.state,
            "step": change.step,
            "reason": change.reason,
            "evidence": change.evidence,
            "memory": course.machine.to_state(),
            "step_began_at": _time(now) if moved else course.row.step_began_at,
        }
    )


def _draft(course: _Course, live: StoredRevision, change: Change) -> RevisionDraft:
    """The revision that puts a change in force: its weights, and the labels of a promotion."""
    release = live.release
    if change.weights is not None:
        release = release.with_weights(change.weights)
    if change.state == "promoted":
        labels = promoted_labels(course.machine.terms, release.labels)
        release = release.model_copy(update={"labels": labels})
    author = Author(actor=change.actor, reason=change.reason)
    return RevisionDraft(live.model, release, author, live.config_digest)


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


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _public(row: StoredRollout) -> Rollout:
    return Rollout.model_validate(row.model_dump(include=set(Rollout.model_fields)))
