"""Exposures, outcomes and what follows from them: reports, and weights that a bandit draws."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any
from zlib import crc32

from deployments.course import Totals
from serve_app.domain.arms import Exposure
from serve_app.domain.control import Outcome, Receipt
from serve_app.errors import InvalidInput, StoreUnavailable
from serve_app.evidence import Arm, Moments
from serve_app.evidence.margin import ENOUGH
from serve_app.rollout import BanditClock, Draw, control_of, report
from serve_app.store.outcomes import ArmTotals
from serve_app.store.releases import ReleaseStore
from serve_app.store.revisions import StoredRevision

logger = logging.getLogger(__name__)

MAX_WAITING = 200_000
"""Exposures that wait for a database that is away; later ones are dropped."""
CHUNK = 5_000
"""Exposures in one transaction, which takes a tenth of a second."""
PRUNE_S = 300.0
TOTALS_S = 2.0
"""How old sums of outcomes may be: with millions of them, adding up takes its time."""
_PAGE = 200
"""Revisions that are looked at together."""


class Experiments:
    """Everything about outcomes. Belongs to one event loop."""

    def __init__(self, store: ReleaseStore) -> None:
        self._store = store
        self._waiting: list[Exposure] = []
        self._clocks: dict[str, BanditClock] = {}
        self._since: dict[str, tuple[StoredRevision, float]] = {}
        """Model -> the revision for which it was looked up, and since when its arms compete."""
        self._totals: dict[str, tuple[float, float, Mapping[str, Moments]]] = {}
        """Model -> since when, when it was looked up, and what was found."""
        self._pruned_at = monotonic()

    def expose(self, exposures: Sequence[Exposure]) -> None:
        """Keeps exposures until the next `flush`."""
        room = max(0, MAX_WAITING - len(self._waiting))
        if len(exposures) > room:
            logger.warning("exposures dropped", extra={"action": "expose"})
        self._waiting.extend(exposures[:room])

    async def flush(self) -> None:
        """Stores what waits, the oldest first; it goes on waiting if the database is away."""
        for _ in range(0, len(self._waiting), CHUNK):
            chunk, self._waiting = self._waiting[:CHUNK], self._waiting[CHUNK:]
            try:
                await self._store.record_exposures(chunk)
            except StoreUnavailable:
                self._waiting = (chunk + self._waiting)[:MAX_WAITING]
                raise

    async def record(
        self, live: StoredRevision, outcomes: Sequence[Outcome], now: float
    ) -> Sequence[Receipt]:
        """See `serve_app.domain.control.Control`."""
        its = live.release.outcomes
        if its is None:
            raise InvalidInput(f"the release of {live.model!r} asks for no outcomes", "outcomes")
        for index, each in enumerate(outcomes):
            if getattr(each, its.kind) is None:
                raise InvalidInput(
                    f"the release of {live.model!r} asks for outcomes of the kind {its.kind}",
                    f"outcomes[{index}].{its.kind}",
                )
        await self.flush()
        return await self._store.record_outcomes(live.model, outcomes, its.window_s, now)

    async def guarded(self, live: StoredRevision) -> Totals | None:
        """What a guard on outcomes looks at; None if there is none, or the database is away."""
        if live.release.strategy.guards.outcome is None:
            return None
        try:
            return await self._sums(live)
        except StoreUnavailable:
            return None

    async def _sums(self, live: StoredRevision) -> Totals:
        """Version -> outcomes since its arms compete; looked up every few seconds only."""
        since = await self._competing_since(live)
        known = self._totals.get(live.model)
        if known is None or known[0] != since or monotonic() - known[1] > TOTALS_S:
            found = await self._store.aggregates(live.model, since)
            totals = {version: _moments(each) for version, each in found.items()}
            known = self._totals[live.model] = (since, monotonic(), totals)
        return known[2]

    async def report(self, live: StoredRevision, now: float) -> Mapping[str, Any]:
        """The comparison of the arms.

        Raises:
            InvalidInput: the release asks for no outcomes.
        """
        its = live.release.outcomes
        if its is None:
            raise InvalidInput(
                f"the release of {live.model!r} asks for no outcomes: there is nothing to compare"
            )
        since = await self._competing_since(live)
        totals = await self._store.aggregates(live.model, since)
        control = control_of(live.release)
        nothing = ArmTotals(0, 0, 0.0, 0.0)
        arms = []
        for version, weight in {control: 0, **live.release.weights}.items():
            counts = totals.get(version, nothing)
            # A version without traffic has no part in it for its last few answers of before.
            if weight or version == control or counts.outcomes >= ENOUGH:
                arms.append(Arm(version, counts.exposures, _moments(counts)))
        return {**report(live.model, its, arms, control, at=now), "since": since}

    async def draw(self, live: StoredRevision, now: float) -> Draw | None:
        """New weights, if the release has a bandit and it is time."""
        model = live.model
        clock = self._clocks.setdefault(model, BanditClock(crc32(model.encode()), now))
        if not clock.due(now, live.release):
            return None
        return clock.draw(now, live.release, await self._sums(live))

    async def prune(self, live: Mapping[str, StoredRevision], now: float) -> None:
        """Every few minutes: deletes what no report needs any more."""
        if monotonic() - self._pruned_at < PRUNE_S:
            return
        self._pruned_at = monotonic()
        windows = {}
        for model, revision in live.items():
            its = revision.release.outcomes
            if its is not None:
                age = now - await self._competing_since(revision)
                windows[model] = its.window_s + age
        await self._store.prune(now, windows)

    async def _competing_since(self, live: StoredRevision) -> float:
        """When the arms of now began to compete: the first revision with the same arms and kind."""
        before, since = self._since.get(live.model, (None, 0.0))
        if before is not None and before.number == live.number:
            return since
        if before is None or before.number != live.number - 1 or not _comparable(before, live):
            since = (await self._first_like(live)).created_at.timestamp()
        self._since[live.model] = live, since
        return since

    async def _first_like(self, live: StoredRevision) -> StoredRevision:
        """The oldest revision since when arms and kind are those of now."""
        first = live
        while page := await self._store.history(live.model, _PAGE, first.number):
            for each in page:
                if not _comparable(each, live):
                    return first
                first = each
        return first


def _comparable(one: StoredRevision, other: StoredRevision) -> bool:
    kinds = [None if r.release.outcomes is None else r.release.outcomes.kind for r in (one, other)]
    return kinds[0] == kinds[1] and set(one.release.weights) == set(other.release.weights)


def _moments(totals: ArmTotals) -> Moments:
    return Moments(totals.outcomes, totals.total, totals.deviations)
