"""The live releases: taken over from the config, changed by people, moved by rollouts, kept in SQL.

ModelRouter owns one of these. Every change is stored first and published then; only a rollout that
goes back does not wait for the database. What one model is refused holds up no other.
docs/releases.md explains what is desired and what live.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import time
from typing import Any

from deployments.disagreements import Disagreements
from deployments.experiments import Experiments
from deployments.rollouts import Rollouts
from serve_app.config.model import ModelConfig
from serve_app.domain.arms import IngressReport
from serve_app.domain.control import (
    Author,
    Outcome,
    Receipt,
    Revision,
    Rollout,
    Standing,
    Steering,
)
from serve_app.domain.release import Release, faults
from serve_app.errors import (
    InvalidInput,
    ModelNotFound,
    NotReady,
    RevisionNotFound,
    ServeAppError,
    StoreUnavailable,
)
from serve_app.rollout import Intake
from serve_app.store.releases import ReleaseStore
from serve_app.store.revisions import RevisionDraft, StoredRevision

logger = logging.getLogger(__name__)

CONFIG = Author(actor="config", reason="the deployed configuration says so")
GONE = Author(actor="config", reason="the live release names a version that is not deployed")
_STEPS = 200
"""More than a rollout has revisions."""

Ready = Callable[[str], frozenset[str]]
"""Model -> its versions that have a ready replica."""


class Releases:
    """What is in force for each model, and the port `Control` over it. Belongs to one event loop.

    Args:
        store: where everything is kept.
        ready: tells which versions are ready.
        publish: called when `release` answers something new.
    """

    def __init__(self, store: ReleaseStore, ready: Ready, publish: Callable[[], None]) -> None:
        self._store, self._ready, self._publish = store, ready, publish
        self._models: Mapping[str, ModelConfig] = {}
        self._desired: Mapping[str, str] = {}
        """Digests of the releases in the config."""
        self._live: dict[str, StoredRevision] = {}
        self._rollouts = Rollouts(store, publish)
        self._experiments = Experiments(store)
        self._disagreements = Disagreements()
        self._intake = Intake()
        self._changing = asyncio.Lock()
        self.opened = False
        """Whether the live releases are known. Before that nothing may be published."""

    # What ModelRouter asks for

    async def open(self) -> None:
        """Reads what was in force.

        Raises:
            StoreUnavailable: the database cannot be used; to be tried again.
        """
        self._live = await self._store.current_all()
        await self._rollouts.open(self._live, time())
        self.opened = True

    def configure(self, models: Mapping[str, ModelConfig]) -> None:
        """Takes the models of the deployed config, with their desired releases."""
        self._models = models
        self._desired = {name: model.release.digest for name, model in models.items()}

    def release(self, model: str) -> Release:
        """What the route table says: the live release, with the weights of a rollout in force."""
        live = self._live.get(model)
        if live is None:
            return self._models[model].release
        weights = self._rollouts.weights(model)
        return live.release if weights is None else live.release.with_weights(weights)

    def take(self, report: IngressReport) -> None:
        """Hears what an ingress has counted."""
        self._rollouts.observe(report)
        if not self._intake.take(report.ingress, report.sequence):
            return
        self._experiments.expose(report.exposures)
        self._disagreements.take(report.disagreements)

    async def tick(self) -> None:
        """Once a second: takes over the config, moves rollouts, draws weights. Never raises."""
        for work in (self._reconcile, self._move, self._reread, self._experiment):
            try:
                await work()
            except ServeAppError as error:
                logger.warning("releases wait: %s", error, extra={"action": "release"})
            except Exception:
                logger.exception("releases", extra={"action": "release"})

    # What happens by itself

    async def _reconcile(self) -> None:
        """Takes desired releases over that differ from those the live ones came from."""
        for model, config in list(self._models.items()):
            live = self._live.get(model)
            same = live is not None and live.config_digest == self._desired[model]
            if not same or (live and any(faults(live.release, config.versions))):
                with _alone(model):
                    await self._adopt(model, config, live)

    async def _adopt(self, model: str, config: ModelConfig, live: StoredRevision | None) -> None:
        desired = self._desired[model]
        if live is None:
            async with self._changing:
                await self._append(model, config.release, CONFIG, desired, 0)
        elif live.config_digest != desired:
            if config.release.serving <= self._ready(model):
                async with self._changing:
                    await self._put(model, config.release, CONFIG, desired, None)
        else:
            kept = live.release.without_idle(config.versions)
            lost = any(faults(kept, config.versions))
            if not lost and self._rollouts.going_on(model):
                return  # which it must not end: candidates without traffic are gone soon enough
            release = config.release if lost else kept
            async with self._changing:
                await self._append(model, release, GONE, live.config_digest, live.number)

    async def _move(self) -> None:
        for model in self._rollouts.models():
            with _alone(model):
                async with self._changing:
                    live, ready = self._live[model], self._ready(model)
                    totals = await self._experiments.guarded(live)
                    moved = await self._rollouts.tick(model, live, ready, totals, time())
                    self._take_over(model, moved)
        async with self._changing:  # after all have been looked at: it may wait for the database
            await self._rollouts.save(time())

    async def _reread(self) -> None:
        """Asks the database where nobody knows whether it has done what it was asked for."""
        for model in list(self._rollouts.doubtful):
            async with self._changing:
                self._take_over(model, await self._rollouts.reread(model, time()))

    async def _experiment(self) -> None:
        await self._experiments.flush()
        for model, live in list(self._live.items()):
            if live.release.bandit is not None and not self._rollouts.going_on(model):
                with _alone(model):
                    await self._draw(model, live)
        await self._experiments.prune(self._live, time())

    async def _draw(self, model: str, live: StoredRevision) -> None:
        draw = await self._experiments.draw(live, time())
        if draw is not None:
            release = live.release.with_weights(draw.weights)
            author = Author(actor="bandit", reason=draw.reason)
            async with self._changing:
                await self._append(model, release, author, live.config_digest, live.number)

    # The port `Control`

    async def standings(self) -> Sequence[Standing]:
        """See `Control`."""
        return [
            Standing(
                revision=_public(live).model_copy(update={"release": self.release(model)}),
                rollout=self._rollouts.current(model),
            )
            for model, live in self._live.items()
            if model in self._models
        ]

    async def live(self, model: str) -> Revision:
        """See `Control.release`."""
        return _public(self._known(model))

    async def change(
        self,
        model: str,
        release: Release,
        author: Author,
        expected: int | None,
        at_once: bool = False,
    ) -> Revision:
        """See `Control`."""
        self._known(model)
        self._check(model, release)
        async with self._changing:
            before = self._live[model]
            number = before.number if expected is None else expected
            put = self._put_at_once if at_once else self._put
            return _public(await put(model, release, author, before.config_digest, number))

    async def revisions(self, model: str, limit: int, before: int | None) -> Sequence[Revision]:
        """See `Control`."""
        self._known(model)
        return [_public(each) for each in await self._store.history(model, limit, before)]

    async def rollback(
        self, model: str, number: int | None, author: Author, expected: int | None
    ) -> Revision:
        """See `Control`."""
        live = self._known(model)
        target = await (self._before(live) if number is None else self._store.get(model, number))
        self._check(model, target.release)
        self._check_labels(model, target.release)
        self._check_ready(model, target.release.serving)
        reason = f"back to revision {target.number}" + (f": {author.reason}" * bool(author.reason))
        author = author.model_copy(update={"reason": reason})
        async with self._changing:
            before = self._live[model]
            expected = before.number if expected is None else expected
            return _public(
                await self._append(model, target.release, author, before.config_digest, expected)
            )

    async def _before(self, live: StoredRevision) -> StoredRevision:
        """The revision before the last change; a rollout is one change, however many its steps."""
        for each in await self._store.history(live.model, _STEPS, live.number):
            if each.rollout_id is None or each.rollout_id != live.rollout_id:
                return each
        raise RevisionNotFound(live.model, 0)

    async def rollouts(self, model: str, limit: int) -> Sequence[Rollout]:
        """See `Control`."""
        self._known(model)
        return await self._rollouts.newest(model, limit)

    async def steer(self, model: str, verb: Steering, author: Author) -> Rollout:
        """See `Control`."""
        self._known(model)
        async with self._changing:
            rollout, moved = await self._rollouts.steer(
                model, self._live[model], verb, author, self._ready(model), time()
            )
            self._take_over(model, moved)
            return rollout

    async def record(self, model: str, outcomes: Sequence[Outcome]) -> Sequence[Receipt]:
        """See `Control`."""
        return await self._experiments.record(self._known(model), outcomes, time())

    async def report(self, model: str) -> Mapping[str, Any]:
        """See `Control`."""
        return await self._experiments.report(self._known(model), time())

    async def disagreements(self, model: str, limit: int) -> Sequence[Mapping[str, Any]]:
        """See `Control`."""
        self._known(model)
        return self._disagreements.newest(model, limit)

    # How a release is put in force

    async def _put(
        self, model: str, release: Release, author: Author, config: str, expected: int | None
    ) -> StoredRevision:
        """By the release's strategy if weights move, else at once."""
        before, now = self._live[model], self.release(model)
        if not self._rollouts.needed(now, release, self._models[model].versions):
            return await self._put_at_once(model, release, author, config, expected)
        self._check_labels(model, release)
        # Without candidates of before that are idle: they may not even be deployed any more.
        weights = {version: now.weights[version] for version in now.serving}
        draft = RevisionDraft(model, release.with_weights(weights), author, config)
        revision = await self._rollouts.begin(draft, release, before, expected, time())
        self._take_over(model, revision)
        return revision

    async def _put_at_once(
        self, model: str, release: Release, author: Author, config: str, expected: int | None
    ) -> StoredRevision:
        self._check_labels(model, release)
        self._check_ready(model, release.serving - self.release(model).serving)
        return await self._append(model, release, author, config, expected)

    async def _append(
        self, model: str, release: Release, author: Author, config: str, expected: int | None
    ) -> StoredRevision:
        """At once; a rollout that is going on gives way."""
        draft = RevisionDraft(model, release, author, config)
        revision = await self._rollouts.append(draft, expected, time())
        self._take_over(model, revision)
        return revision

    def _take_over(self, model: str, revision: StoredRevision | None) -> None:
        """Puts a stored revision in force, if it is another one."""
        if revision is None or revision == self._live.get(model):
            return
        self._live[model] = revision
        logger.info(
            "revision %d: %s",
            revision.number,
            "; ".join(revision.changes),
            extra={"action": "release", "model": model},
        )
        self._publish()

    def _known(self, model: str) -> StoredRevision:
        if model not in self._models:
            raise ModelNotFound(model)
        if model not in self._live:
            raise NotReady(f"the release of model {model!r} is not known yet")
        return self._live[model]

    def _check(self, model: str, release: Release) -> None:
        for where, text in faults(release, self._models[model].versions):
            raise InvalidInput(text, "release." + ".".join(map(str, where)))

    def _check_labels(self, model: str, release: Release) -> None:
        """Labels only move to versions that are ready."""
        before = self._live[model].release.labels
        moved = [name for label, name in release.labels.items() if before.get(label) != name]
        self._check_ready(model, frozenset(moved))

    def _check_ready(self, model: str, versions: frozenset[str]) -> None:
        missing = sorted(versions - self._ready(model))
        if missing:
            text = f"version {missing[0]!r} of model {model!r} has no ready replica"
            raise NotReady(f"{text}: traffic and labels only go to versions that are ready")


@contextmanager
def _alone(model: str) -> Iterator[None]:
    """Whatever goes wrong with one model stays with it; only the database concerns all."""
    extra = {"action": "release", "model": model}
    try:
        yield
    except StoreUnavailable:
        raise
    except ServeAppError as error:
        logger.warning("a release waits: %s", error, extra=extra)
    except Exception:
        logger.exception("a release", extra=extra)


def _public(revision: StoredRevision) -> Revision:
    return Revision.model_validate(revision.model_dump(exclude={"rollout_id"}))
