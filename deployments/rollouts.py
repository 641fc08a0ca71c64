"""The rollouts that are going on: machines in this process, rows in SQL, and how both stay one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from deployments.course import Course, Totals, moment, public
from serve_app.domain.arms import IngressReport
from serve_app.domain.control import Author, Rollout, Steering
from serve_app.domain.release import Release
from serve_app.errors import Conflict, RevisionConflict, StoreUnavailable
from serve_app.rollout import Change, RolloutMachine, Terms
from serve_app.store.releases import ReleaseStore
from serve_app.store.revisions import RevisionDraft, StoredRevision
from serve_app.store.rollouts import RolloutDraft, StoredRollout

logger = logging.getLogger(__name__)

SAVE_S = 1.0
"""How often what a rollout has learnt is stored: so much is lost when its owner dies."""


class Rollouts:
    """At most one per model. Belongs to one event loop; its owner makes one change at a time."""

    def __init__(self, store: ReleaseStore, publish: Callable[[], None]) -> None:
        """Knows of none yet.

        Args:
            store: where they are kept.
            publish: called when `weights` answers something new that must not wait for the store.
        """
        self._store, self._publish = store, publish
        self._courses: dict[str, Course] = {}
        self.doubtful: set[str] = set()
        """Models for which the database was asked for something that it may have done or not, or
        that did not fit what it had: to be read again."""

    async def open(self, live: Mapping[str, StoredRevision], now: float) -> None:
        """Goes on with those that a former process has left.

        Args:
            live: the revision in force of each model.
            now: seconds since the epoch.
        """
        for model, row in (await self._store.active_rollouts()).items():
            self._courses[model] = Course.resumed(row, live.get(model), now)

    async def reread(self, model: str, now: float) -> StoredRevision | None:
        """Takes over what the database has of a model; returns the revision in force."""
        revision, row = await self._store.situation(model)
        self.doubtful.discard(model)
        course = self._courses.get(model)
        if row is None:
            self._courses.pop(model, None)
        elif course is None or not course.agrees(row):
            self._courses[model] = Course.resumed(row, revision, now)
        else:
            course.row = row
        return revision

    def models(self) -> list[str]:
        """Those with a rollout."""
        return list(self._courses)

    def going_on(self, model: str) -> bool:
        """Whether a model has one."""
        return model in self._courses

    def weights(self, model: str) -> Mapping[str, int] | None:
        """What a rollout has put in force; None leaves that to the stored release.

        Traffic goes back whether or not the database knows it already; nothing else does.
        """
        course = self._courses.get(model)
        if course is None or (course.unsaved and course.unsaved.state != "rolled_back"):
            return None
        return course.machine.weights

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
            step_began_at=moment(now),
            step=progress.step,
            memory=machine.to_state(),
        )
        saves = self._given_way(draft, now)
        with self._doubting(draft.model):
            written = await self._store.append(draft, expected, saves=saves, opens=opens)
        if written.rollout is not None:
            self._courses[draft.model] = Course(written.rollout, machine)
        return written.revision

    async def append(
        self, draft: RevisionDraft, expected: int | None, now: float
    ) -> StoredRevision:
        """Puts a release in force without a rollout; one that is going on gives way."""
        saves = self._given_way(draft, now)
        with self._doubting(draft.model):
            written = await self._store.append(draft, expected, saves=saves)
        self._courses.pop(draft.model, None)
        return written.revision

    async def tick(
        self,
        model: str,
        live: StoredRevision,
        ready: Collection[str],
        totals: Totals | None,
        now: float,
    ) -> StoredRevision | None:
        """Looks at one rollout, and does what it decides; a new revision if that is stored."""
        course = self._courses[model]
        if totals is not None:
            course.record(totals)
        found = course.machine.tick(now, ready, stored=course.unsaved is None)
        change = found or course.unsaved
        if change is None:
            return None
        return await self._carry_out(course, live, change, now)

    async def save(self, now: float) -> None:
        """Stores what has been learnt since the last time.

        Raises:
            StoreUnavailable: to be tried again.
        """
        for model, course in list(self._courses.items()):
            if course.dirty and course.unsaved is None and now - course.saved_at >= SAVE_S:
                with self._doubting(model):
                    course.row = await self._store.save_rollout(course.row_now())
                course.saved_at, course.dirty = now, False

    async def steer(
        self,
        model: str,
        live: StoredRevision,
        verb: Steering,
        author: Author,
        ready: Collection[str],
        now: float,
    ) -> tuple[Rollout, StoredRevision | None]:
        """Does what somebody wants; with the new revision, if there is one.

        Raises:
            Conflict: there is no rollout, or it is not in a state for this.
            StoreUnavailable: nothing was done. Traffic goes back all the same, and is stored later.
        """
        course = self._courses.get(model)
        if course is None or course.machine.progress.final:
            raise Conflict(f"model {model!r} has no rollout that is going on")
        if verb != "rollback":
            course = course.copy()
        try:
            change = course.machine.steer(verb, author, now, ready)
        except ValueError as error:
            raise Conflict(f"{verb} of the rollout of {model!r}: {error}") from error
        carry_out = self._carry_out if verb == "rollback" else self._keep
        revision = await carry_out(course, live, change, now)
        return course.current(), revision

    def current(self, model: str) -> Rollout | None:
        """The one that is going on, as it is at this moment."""
        course = self._courses.get(model)
        return None if course is None else course.current()

    async def newest(self, model: str, limit: int) -> Sequence[Rollout]:
        """The newest rollouts, with the evidence of this moment where one is going on."""
        found = [public(each) for each in await self._store.rollouts(model, limit)]
        current = self.current(model)
        if current is None or not found or found[0].id != current.id:
            return found
        return [current, *found[1:]]

    async def _carry_out(
        self, course: Course, live: StoredRevision, change: Change, now: float
    ) -> StoredRevision | None:
        """Stores what the machine has done, or does so later; traffic that goes back is back."""
        new, course.unsaved = change is not course.unsaved, change
        if new and change.state == "rolled_back":
            self._publish()
        try:
            return await self._keep(course, live, change, now)
        except StoreUnavailable:
            logger.warning(
                "the database does not take what a rollout did",
                extra={"action": "rollout", "model": live.model},
            )
            return None

    async def _keep(
        self, course: Course, live: StoredRevision, change: Change, now: float
    ) -> StoredRevision | None:
        """Stores what the machine has done; from then on it is in force."""
        row, draft = course.row_after(change, now), course.draft(live, change)
        revision = None
        with self._doubting(live.model):
            if draft.release == live.release:
                course.row = await self._store.save_rollout(row)
            else:
                written = await self._store.append(draft, live.number, saves=row)
                revision, course.row = written.revision, written.rollout or row
        course.unsaved, course.saved_at, course.dirty = None, now, False
        logger.info(
            "%s: %s", change.state, change.reason, extra={"action": "rollout", "model": live.model}
        )
        if course.machine.progress.final:
            del self._courses[live.model]
        else:
            self._courses[live.model] = course
        return revision

    def _given_way(self, draft: RevisionDraft, now: float) -> StoredRollout | None:
        """The row of the rollout that ends because of this change."""
        course = self._courses.get(draft.model)
        return None if course is None else course.row_given_way(draft.author, now)

    @contextmanager
    def _doubting(self, model: str) -> Iterator[None]:
        try:
            yield
        except (StoreUnavailable, Conflict, RevisionConflict):
            self.doubtful.add(model)
            raise
