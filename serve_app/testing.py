"""Fakes and builders, shipped so that our tests and users' tests share them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from serve_app.domain.batching_policy import BatchingPolicy
from serve_app.domain.caller import HttpCaller
from serve_app.domain.control import (
    Author,
    Outcome,
    Receipt,
    ReceiptStatus,
    Revision,
    Rollout,
    RolloutState,
    Standing,
    Steering,
)
from serve_app.domain.deployer import Accepted, Deployment, DeploymentDetails, Progress, Wanted
from serve_app.domain.inference import BatchResult, InferenceBatch, VersionKey
from serve_app.domain.release import Candidate, Release
from serve_app.domain.routing import ModelRoute, RouteTable, VersionRoute
from serve_app.domain.tensor import Array, TensorSpec
from serve_app.errors import (
    Conflict,
    ModelNotFound,
    RevisionConflict,
    RevisionNotFound,
    ServeAppError,
)
from serve_app.telemetry.trace import RequestTrace

Compute = Callable[[VersionKey, Mapping[str, Array]], Mapping[str, Array]]


def identity(_key: VersionKey, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """Answers each input as an output of the same name."""
    return inputs


class FakeGateway:
    """Computes batches in this process and remembers them."""

    def __init__(self, compute: Compute = identity, delay_s: float = 0.0) -> None:
        self.compute = compute
        self.delay_s = delay_s
        self.batches: list[tuple[VersionKey, InferenceBatch]] = []
        self.wakes: list[VersionKey] = []
        self.awake = asyncio.Event()

    async def call(self, key: VersionKey, batch: InferenceBatch, timeout_s: float) -> BatchResult:
        """See `serve_app.domain.gateway.Gateway`."""
        self.batches.append((key, batch))
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        return BatchResult(self.compute(key, batch.inputs), {}, self.delay_s)

    async def wake(self, key: VersionKey) -> None:
        """See `serve_app.domain.gateway.Gateway`; returns when `awake` is set."""
        self.wakes.append(key)
        await self.awake.wait()


def caller_with(headers: Mapping[str, str], query: str = "") -> HttpCaller:
    """The sender of a request with these headers, their names in lower case."""
    fields = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    return HttpCaller(fields, query.encode())


def model_route(
    name: str = "echo",
    *,
    inputs: tuple[TensorSpec, ...] = (TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),),
    outputs: tuple[TensorSpec, ...] | None = None,
    weights: Mapping[str, int] | None = None,
    replicas: Mapping[str, int] | None = None,
    batching: BatchingPolicy | None = None,
    timeout_s: float = 5.0,
    idempotent: bool = True,
    wakes: bool = False,
    **release: Any,
) -> ModelRoute:
    """A model whose outputs mirror its inputs unless given, with version 1 ready.

    Further fields of the release, such as `sticky` or `mirror`, go by their names.
    """
    weights = weights or {"1": 100}
    versions = {
        version: VersionRoute(
            key=VersionKey(name, version),
            application=f"{name}@{version}",
            platform="test",
            batching=batching or BatchingPolicy(),
            timeout_s=timeout_s,
            replicas=(replicas or {}).get(version, 1),
            idempotent=idempotent,
            asleep=wakes and (replicas or {}).get(version, 1) == 0,
        )
        for version in {**weights, **(replicas or {})}
    }
    return ModelRoute(
        name=name,
        description="a model for tests",
        inputs=inputs,
        outputs=inputs if outputs is None else outputs,
        versions=versions,
        release=Release(
            candidates=tuple(Candidate(version=v, weight=w) for v, w in weights.items()), **release
        ),
    )


def route_table(*models: ModelRoute, revision: int = 1) -> RouteTable:
    """A table of the given models, or of one echo model."""
    return RouteTable(revision, {model.name: model for model in models or (model_route(),)})


class RecordingTelemetry:
    """Remembers every finished request as (trace, status, code)."""

    def __init__(self) -> None:
        self.finished: list[tuple[RequestTrace, int, str]] = []

    def finish(self, trace: RequestTrace, status: int, code: str) -> None:
        """See `serve_app.telemetry.sink.Telemetry`."""
        self.finished.append((trace, status, code))


class FakeControl:
    """Keeps releases in memory; every change is in force at once, as if all versions were ready."""

    def __init__(self, **releases: Release) -> None:
        self._revisions = {model: [_revision(model, 1, each)] for model, each in releases.items()}
        self.rollout: Rollout | None = None
        self.outcomes: dict[tuple[str, str], Outcome] = {}
        self.authors: list[Author] = []

    async def standings(self) -> Sequence[Standing]:
        """See `serve_app.domain.control.Control`; so are all others."""
        return [
            Standing(revision=history[-1], rollout=self.rollout)
            for history in self._revisions.values()
        ]

    async def release(self, model: str) -> Revision:
        """The newest revision."""
        return self._history(model)[-1]

    async def change(
        self,
        model: str,
        release: Release,
        author: Author,
        expected: int | None,
        *,
        at_once: bool = False,
    ) -> Revision:
        """Appends a revision."""
        history = self._history(model)
        if expected not in (None, history[-1].number):
            raise RevisionConflict(model, expected or 0, history[-1].number)
        self.authors.append(author)
        history.append(_revision(model, history[-1].number + 1, release, author))
        return history[-1]

    async def revisions(self, model: str, limit: int, before: int | None) -> Sequence[Revision]:
        """The newest first."""
        found = [each for each in self._history(model) if before is None or each.number < before]
        return found[: -limit - 1 : -1]

    async def rollback(
        self, model: str, number: int | None, author: Author, expected: int | None
    ) -> Revision:
        """Appends an old release as a new revision."""
        history = self._history(model)
        wanted = history[-1].number - 1 if number is None else number
        for each in history:
            if each.number == wanted:
                return await self.change(model, each.release, author, expected)
        raise RevisionNotFound(model, wanted)

    async def rollouts(self, model: str, limit: int) -> Sequence[Rollout]:
        """The one that a test has put here."""
        self._history(model)
        return [self.rollout] if self.rollout is not None else []

    async def steer(self, model: str, verb: Steering, author: Author) -> Rollout:
        """Moves it to the state that the verb names."""
        self._history(model)
        if self.rollout is None:
            raise Conflict(f"model {model!r} has no rollout that is going on")
        self.authors.append(author)
        states: dict[Steering, RolloutState] = {
            "promote": "promoted",
            "pause": "paused",
            "resume": "progressing",
            "rollback": "rolled_back",
        }
        self.rollout = self.rollout.model_copy(update={"state": states[verb]})
        return self.rollout

    async def record(self, model: str, outcomes: Sequence[Outcome]) -> Sequence[Receipt]:
        """Counts each request id once."""
        self._history(model)
        receipts = []
        for each in outcomes:
            known = (model, each.request_id) in self.outcomes
            self.outcomes.setdefault((model, each.request_id), each)
            status: ReceiptStatus = "duplicate" if known else "counted"
            receipts.append(Receipt(request_id=each.request_id, status=status))
        return receipts

    async def report(self, model: str) -> Mapping[str, Any]:
        """How many outcomes there are."""
        self._history(model)
        return {"model": model, "outcomes": len(self.outcomes)}

    async def disagreements(self, model: str, limit: int) -> Sequence[Mapping[str, Any]]:
        """None."""
        self._history(model)
        return []

    def _history(self, model: str) -> list[Revision]:
        try:
            return self._revisions[model]
        except KeyError:
            raise ModelNotFound(model) from None


class FakeDeployer:
    """Keeps deployments in memory: whatever is wanted serves at once, unless `refusal` is set."""

    def __init__(self) -> None:
        self.refusal: ServeAppError | None = None
        self.authors: list[Author] = []
        self._made: list[DeploymentDetails] = []

    async def plan(self, wanted: Wanted) -> Mapping[str, Any]:
        """See `serve_app.domain.deployer.Deployer`; so are all others."""
        return self._plan(_config(wanted))

    async def apply(self, wanted: Wanted, author: Author) -> Accepted:
        """Appends a deployment if it differs from the last one."""
        return self._make(_config(wanted), author)

    async def rollback(self, revision: int | None, author: Author) -> Accepted:
        """Appends an old deployment as a new one."""
        wanted = len(self._made) - 1 if revision is None else revision
        return self._make((await self.deployment(wanted)).config, author)

    async def deployments(self, limit: int, before: int | None) -> Sequence[Deployment]:
        """The newest first."""
        found = [each for each in self._made if before is None or each.revision < before]
        return [
            Deployment.model_validate(each.model_dump(exclude={"progress", "config"}))
            for each in found[: -limit - 1 : -1]
        ]

    async def deployment(self, revision: int) -> DeploymentDetails:
        """One that was made."""
        if not 0 < revision <= len(self._made):
            raise RevisionNotFound("", revision)
        return self._made[revision - 1]

    def _plan(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.refusal is not None:
            raise self.refusal
        return {
            "fresh": not self._made,
            "changes": not self._made or self._made[-1].config != config,
            "code": False,
            "gateway": [],
            "models": [],
            "resources": None,
            "notices": [],
            "refusals": [],
        }

    def _make(self, config: Mapping[str, Any], author: Author) -> Accepted:
        plan = self._plan(config)
        if not plan["changes"]:
            return Accepted(revision=None, plan=plan)
        self.authors.append(author)
        at = datetime(2026, 1, 1, tzinfo=UTC)
        made = DeploymentDetails(
            revision=len(self._made) + 1,
            created_at=at,
            actor=author.actor,
            outcome="applied",
            reason=author.reason,
            changes="everything",
            progress=(Progress(at=at, text="done"),),
            config=config,
        )
        self._made.append(made)
        return Accepted(revision=made.revision, plan=plan)


def _config(wanted: Wanted) -> Mapping[str, Any]:
    return wanted.model_dump(mode="json", exclude_none=True)


def _revision(model: str, number: int, release: Release, author: Author | None = None) -> Revision:
    author = author or Author(actor="test")
    return Revision(
        model=model,
        number=number,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        actor=author.actor,
        reason=author.reason,
        release=release,
        changes=(),
        config_digest=release.digest,
    )
