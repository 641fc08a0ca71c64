"""The history of deployments for the admin API: read from SQL, and compared, in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from deployments.history import details, history
from serve_app.config.cluster import DatabaseConfig
from serve_app.domain.deployer import Deployment, DeploymentDetails
from serve_app.errors import OperatorError, RevisionNotFound, StoreUnavailable
from serve_app.store.deployments import DeploymentLog

T = TypeVar("T")


class Records:
    """Reads what ModelRouter's database says. Opens nothing before it is asked."""

    def __init__(self, database: DatabaseConfig) -> None:
        self._database = database
        self._log: DeploymentLog | None = None

    async def deployments(self, limit: int, before: int | None) -> list[Deployment]:
        """See `serve_app.domain.deployer.Deployer`."""
        rows = await self._read(lambda log: history(log, limit, before))
        return [Deployment.model_validate(each) for each in rows]

    async def deployment(self, revision: int) -> DeploymentDetails:
        """See `serve_app.domain.deployer.Deployer`."""
        found = await self._read(lambda log: details(log, revision))
        if found is None:
            raise RevisionNotFound("", revision)
        return DeploymentDetails.model_validate(found)

    async def _read(self, query: Callable[[DeploymentLog], T]) -> T:
        try:
            return await asyncio.to_thread(lambda: query(self._opened()))
        except OperatorError as error:
            raise StoreUnavailable(str(error)) from error

    def _opened(self) -> DeploymentLog:
        if self._log is None:
            self._log = DeploymentLog(self._database)
        return self._log


VERBS: dict[str, Callable[..., Any]] = {
    "deployments": Records.deployments,
    "deployment": Records.deployment,
}
