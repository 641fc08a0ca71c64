"""The port `Control` over a handle of ModelRouter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.answer import answered
from serve_app.domain.control import (
    Author,
    Outcome,
    Receipt,
    Revision,
    Rollout,
    Standing,
    Steering,
)
from serve_app.domain.release import Release

TIMEOUT_S = 15.0
"""Above the time that the database may take."""


class RouterControl:
    """Asks ModelRouter, who answers one call after the other where they change something."""

    def __init__(self, router: DeploymentHandle[Any]) -> None:
        self._router = router

    async def standings(self) -> Sequence[Standing]:
        """See `Control`."""
        found: Sequence[Standing] = await self._call("standings")
        return found

    async def release(self, model: str) -> Revision:
        """See `Control`."""
        found: Revision = await self._call("release", model)
        return found

    async def change(
        self,
        model: str,
        release: Release,
        author: Author,
        expected: int | None,
        *,
        at_once: bool = False,
    ) -> Revision:
        """See `Control`."""
        made: Revision = await self._call("change", model, release, author, expected, at_once)
        return made

    async def revisions(self, model: str, limit: int, before: int | None) -> Sequence[Revision]:
        """See `Control`."""
        found: Sequence[Revision] = await self._call("revisions", model, limit, before)
        return found

    async def rollback(
        self, model: str, number: int | None, author: Author, expected: int | None
    ) -> Revision:
        """See `Control`."""
        made: Revision = await self._call("rollback", model, number, author, expected)
        return made

    async def rollouts(self, model: str, limit: int) -> Sequence[Rollout]:
        """See `Control`."""
        found: Sequence[Rollout] = await self._call("rollouts", model, limit)
        return found

    async def steer(self, model: str, verb: Steering, author: Author) -> Rollout:
        """See `Control`."""
        found: Rollout = await self._call("steer", model, verb, author)
        return found

    async def record(self, model: str, outcomes: Sequence[Outcome]) -> Sequence[Receipt]:
        """See `Control`."""
        receipts: Sequence[Receipt] = await self._call("record", model, outcomes)
        return receipts

    async def report(self, model: str) -> Mapping[str, Any]:
        """See `Control`."""
        found: Mapping[str, Any] = await self._call("report", model)
        return found

    async def disagreements(self, model: str, limit: int) -> Sequence[Mapping[str, Any]]:
        """See `Control`."""
        found: Sequence[Mapping[str, Any]] = await self._call("disagreements", model, limit)
        return found

    async def _call(self, verb: str, *arguments: Any) -> Any:
        return await ask_router(self._router, verb, *arguments)


async def ask_router(router: DeploymentHandle[Any], verb: str, *arguments: Any) -> Any:
    """What ModelRouter answers; see `deployments.answer.answered`."""
    return await answered(lambda: router.control.remote(verb, *arguments), TIMEOUT_S, "ModelRouter")
