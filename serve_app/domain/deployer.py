"""The port between the admin API and whatever plans, applies and remembers whole deployments.

Values are plain pydantic models: they cross processes and become JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serve_app.domain.control import Author

DeploymentOutcome = Literal["applying", "applied", "failed"]


class Wanted(BaseModel):
    """A configuration: overrides of the config files, or all of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    overrides: tuple[str, ...] | None = Field(
        None,
        max_length=1000,
        description="of the config files on the head node, each as on the command line; [] takes "
        "the files as they are",
    )
    config: Mapping[str, Any] | None = Field(
        None, description="the whole configuration, as `serve-app config --json` prints it"
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.overrides is None) == (self.config is None):
            raise ValueError("give either overrides or config.")
        return self


class Accepted(BaseModel):
    """What an order comes to."""

    model_config = ConfigDict(frozen=True)

    revision: int | None = Field(
        description="of the deployment that is carried out now; null: there is nothing to do"
    )
    plan: Mapping[str, Any]


class Deployment(BaseModel):
    """One `up`, `apply` or `rollback`, from the command line or from here."""

    model_config = ConfigDict(frozen=True)

    revision: int
    created_at: datetime
    actor: str
    outcome: DeploymentOutcome
    reason: str = Field(description="why it was made, and why it failed if it did")
    changes: str = Field(description="what it changed, or would have, in words")


class Progress(BaseModel):
    """A line that was said while a deployment was carried out."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    text: str


class DeploymentDetails(Deployment):
    """All that is known of a deployment."""

    progress: tuple[Progress, ...]
    config: Mapping[str, Any] = Field(description="the whole configuration; it can be sent back")


class Deployer(Protocol):
    """Implementations: actors on a Ray cluster, and a fake in tests.

    Every method raises NotReady when what it needs is away, and StoreUnavailable when the database
    cannot be used.
    """

    async def plan(self, wanted: Wanted) -> Mapping[str, Any]:
        """What applying a configuration would do.

        Raises:
            InvalidInput: the configuration is wrong; says where.
        """
        ...

    async def apply(self, wanted: Wanted, author: Author) -> Accepted:
        """Plans, records, and goes on with it after this has returned.

        Raises:
            InvalidInput: see `plan`.
            Conflict: somebody else applies at the moment, or the plan is refused.
        """
        ...

    async def rollback(self, revision: int | None, author: Author) -> Accepted:
        """Applies a former deployment again, as `apply` does.

        Args:
            revision: of the deployment; None takes the newest that served and is another than the
                one that runs.
            author: who, and why.

        Raises:
            RevisionNotFound: there is no such deployment.
            InvalidInput: its configuration does not fit any more.
            Conflict: it never served, or see `apply`.
        """
        ...

    async def deployments(self, limit: int, before: int | None) -> Sequence[Deployment]:
        """The newest deployments below `before`, newest first."""
        ...

    async def deployment(self, revision: int) -> DeploymentDetails:
        """One of them.

        Raises:
            RevisionNotFound: there is no such deployment.
        """
        ...
