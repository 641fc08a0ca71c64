"""The port `Deployer`: orders go to actors, and ModelRouter, who has the database, remembers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.answer import answered
from deployments.applier import launch
from deployments.arguments import GatewayArguments
from deployments.control import ask_router
from serve_app.domain.control import Author
from serve_app.domain.deployer import Accepted, Deployment, DeploymentDetails, Wanted
from serve_app.errors import Overloaded

ORDER_TIMEOUT_S = 60.0
"""A process has to start, and maybe the example models are to be trained."""
MAX_ORDERS = 4
"""That one ingress waits for at a time: each is a process."""


class ActorDeployer:
    """Gives each order to an actor of its own."""

    def __init__(self, arguments: GatewayArguments, router: DeploymentHandle[Any]) -> None:
        self._arguments, self._router = arguments, router
        self._orders = 0

    async def plan(self, wanted: Wanted) -> Mapping[str, Any]:
        """See `serve_app.domain.deployer.Deployer`; so are all others."""
        return (await self._order("plan", wanted)).plan

    async def apply(self, wanted: Wanted, author: Author) -> Accepted:
        """Returns when the actor has recorded it."""
        return await self._order("apply", wanted, author)

    async def rollback(self, revision: int | None, author: Author) -> Accepted:
        """Looks first whether there is such a deployment: that takes no process."""
        if revision is not None:
            await self.deployment(revision)
        return await self._order("rollback", revision, author)

    async def deployments(self, limit: int, before: int | None) -> Sequence[Deployment]:
        """As they are recorded."""
        found: Sequence[Deployment] = await ask_router(self._router, "deployments", limit, before)
        return found

    async def deployment(self, revision: int) -> DeploymentDetails:
        """As it is recorded."""
        found: DeploymentDetails = await ask_router(self._router, "deployment", revision)
        return found

    async def _order(self, verb: str, *order: Any) -> Accepted:
        if self._orders >= MAX_ORDERS:
            raise Overloaded(f"{MAX_ORDERS} plans and applies are being made already")
        self._orders += 1
        try:
            actor = await asyncio.to_thread(launch, self._arguments, verb, *order)
            accepted: Accepted = await answered(
                actor.answer.remote, ORDER_TIMEOUT_S, "what plans and applies"
            )
        finally:
            self._orders -= 1
        return accepted
