"""The state of releases for ModelRouter: revisions, rollouts and outcomes, asynchronously."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from sqlalchemy import Connection

from serve_app.config.cluster import DatabaseConfig
from serve_app.domain.arms import Exposure
from serve_app.domain.control import Outcome, Receipt
from serve_app.store import outcomes, revisions, rollouts
from serve_app.store.database import Database
from serve_app.store.outcomes import ArmTotals
from serve_app.store.revisions import RevisionDraft, StoredRevision
from serve_app.store.rollouts import RolloutDraft, RolloutEvent, StoredRollout

RETENTION_S = 7 * 86_400.0
"""How long exposures and outcomes of a model are kept that nobody says anything about."""

_CHUNK = 5_000
_CHUNKS = 40
"""At most so many transactions of so many rows in one `prune`: other writers come in between."""


class Written(NamedTuple):
    """What one change of a release has left behind."""

    revision: StoredRevision
    rollout: StoredRollout | None
    """The one that the revision belongs to."""


class Situation(NamedTuple):
    """How things stand with one model."""

    revision: StoredRevision | None
    """The one in force."""
    rollout: StoredRollout | None
    """The one that has not ended."""


class ReleaseStore:
    """Everything that ModelRouter must find again after a restart.

    Every method raises StoreUnavailable when the database cannot be used, within
    `database.timeout_s` and a second. One transaction each.
    """

    def __init__(self, database: DatabaseConfig) -> None:
        """Opens nothing yet.

        Raises:
            ConfigError: see `Database`.
        """
        self._database = Database(database)

    async def close(self) -> None:
        """Closes the connections."""
        await self._database.close()

    async def current(self, model: str) -> StoredRevision | None:
        """The revision in force; None for a model that has none yet."""
        return await self._database.read(partial(revisions.newest, model=model))

    async def situation(self, model: str) -> Situation:
        """The revision in force and the rollout that goes on."""

        def work(connection: Connection) -> Situation:
            newest = revisions.newest(connection, model)
            return Situation(newest, rollouts.going_on(connection, model))

        return await self._database.read(work)

    async def current_all(self) -> dict[str, StoredRevision]:
        """The revision in force of every model that ever had one. For the start: it reads all."""
        found = await self._database.read(revisions.newest_of_all)
        return {revision.model: revision for revision in found}

    async def history(
        self, model: str, limit: int = 20, before: int | None = None
    ) -> Sequence[StoredRevision]:
        """The newest revisions below the number `before`, newest first."""
        return await self._database.read(
            partial(revisions.history, model=model, limit=limit, before=before)
        )

    async def get(self, model: str, number: int) -> StoredRevision:
        """One revision.

        Raises:
            RevisionNotFound: there is none of this number.
        """
        return await self._database.read(partial(revisions.get, model=model, number=number))

    async def append(
        self,
        draft: RevisionDraft,
        expected: int | None,
        *,
        saves: StoredRollout | None = None,
        opens: RolloutDraft | None = None,
    ) -> Written:
        """Puts a release in force, and with it what becomes of rollouts: all or nothing.

        Args:
            draft: what, by whom.
            expected: the number of the revision that the author saw, 0 for none; None overwrites
                whatever there is.
            saves: the rollout that goes on or ends with it.
            opens: a rollout that begins with it, after `saves` has ended.

        Raises:
            RevisionConflict: another revision is in force.
            Conflict: `saves` has ended before, or `opens` finds another one going on.
        """

        def work(connection: Connection) -> Written:
            # First of all: who comes too late shall hear of that, and not of a rollout.
            revisions.expect(connection, draft.model, expected)
            rollout = rollouts.save(connection, saves) if saves is not None else None
            if opens is not None:
                rollout = rollouts.begin(connection, opens)
            number = rollout.id if rollout is not None else None
            return Written(revisions.append(connection, draft, number), rollout)

        return await self._database.write(work)

    async def open_rollout(self, draft: RolloutDraft) -> StoredRollout:
        """Begins a rollout that changes no release yet.

        Raises:
            Conflict: the model has one that has not ended.
        """
        return await self._database.write(partial(rollouts.begin, draft=draft))

    async def save_rollout(self, rollout: StoredRollout) -> StoredRollout:
        """Stores how far a rollout is; an event too if it came into a state or to a step.

        Raises:
            Conflict: it has ended already.
            ValueError: its evidence is no JSON; NaN and infinity are not.
        """
        return await self._database.write(partial(rollouts.save, rollout=rollout))

    async def active_rollouts(self) -> dict[str, StoredRollout]:
        """The rollouts that have not ended, by model."""
        found = await self._database.read(rollouts.unfinished)
        return {rollout.model: rollout for rollout in found}

    async def rollouts(self, model: str, limit: int = 20) -> Sequence[StoredRollout]:
        """The newest rollouts of a model, newest first."""
        return await self._database.read(partial(rollouts.newest, model=model, limit=limit))

    async def rollout_events(self, rollout_id: int, limit: int = 100) -> Sequence[RolloutEvent]:
        """The newest events of a rollout, newest first."""
        return await self._database.read(
            partial(rollouts.events, rollout_id=rollout_id, limit=limit)
        )

    async def record_exposures(self, exposures: Sequence[Exposure]) -> None:
        """Stores requests whose outcome may be reported; repeating it changes nothing."""
        await self._database.write(partial(outcomes.record_exposures, exposures=exposures))

    async def record_outcomes(
        self, model: str, reported: Sequence[Outcome], window_s: float, now: float
    ) -> Sequence[Receipt]:
        """Stores reported outcomes: the first of a request counts, if it comes in time.

        One whose request is unknown waits for its exposure, `outcomes.PENDING_S` at most.

        Args:
            model: whose requests.
            reported: of the kind that the model's release asks for.
            window_s: how long after its request an outcome counts.
            now: seconds since the epoch.

        Returns:
            What was done with each, in the same order.

        Raises:
            InvalidInput: one does not fit its request; nothing is stored.
        """
        return await self._database.write(
            partial(
                outcomes.record_outcomes,
                model=model,
                outcomes=reported,
                window_s=window_s,
                now=now,
            )
        )

    async def aggregates(self, model: str, since: float) -> Mapping[str, ArmTotals]:
        """Version -> totals over the requests from a moment on (seconds since the epoch).

        A report that shall start anew asks from the moment of the change on.
        """
        return await self._database.read(partial(outcomes.aggregates, model=model, since=since))

    async def prune(self, now: float, windows: Mapping[str, float]) -> int:
        """Deletes what no report needs any more; the rest of a very long list next time.

        Args:
            now: seconds since the epoch.
            windows: for how many seconds exposures and outcomes of a model are kept: no less than
                the window of its outcomes and the age of the report that is running. Other models
                have `RETENTION_S`.

        Returns:
            How many rows are gone.
        """
        deleted = await self._database.write(partial(outcomes.delete_pending, now=now))
        model, chunks = await self._next_model(""), 0
        while model is not None and chunks < _CHUNKS:
            gone = await self._database.write(
                partial(
                    outcomes.delete_old,
                    model=model,
                    before=now - windows.get(model, RETENTION_S),
                    limit=_CHUNK,
                )
            )
            deleted, chunks = deleted + gone, chunks + 1
            if gone < _CHUNK:
                model = await self._next_model(model)
        return deleted

    async def _next_model(self, after: str) -> str | None:
        return await self._database.read(partial(outcomes.next_model, after=after))
