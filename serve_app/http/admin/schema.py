"""What the admin API takes and gives, where that is not a value of the domain itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from serve_app.domain.control import Outcome, Receipt, Revision, Rollout, Standing
from serve_app.domain.deployer import Deployment, Wanted
from serve_app.domain.release import Release
from serve_app.domain.tensor import Name

MAX_OUTCOMES = 1000
MAX_NUMBER = 2**31 - 1
"""Of a revision: what every database takes."""

_REASON = Field("", max_length=2000, description="why; kept with the revision")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ReleaseChange(_Body):
    """Another release, whole."""

    release: Release
    reason: str = _REASON


class TrafficChange(_Body):
    """Other weights; versions that are not named get none."""

    weights: Mapping[Name, int] = Field(
        min_length=1, description="version -> percent, together 100"
    )
    reason: str = _REASON


class Reason(_Body):
    """Why somebody acts on a rollout."""

    reason: str = _REASON


class Rollback(_Body):
    """Which revision to go back to."""

    revision: int | None = Field(
        None, ge=1, le=MAX_NUMBER, description="null: the one before the last change"
    )
    reason: str = _REASON


class OutcomeReport(_Body):
    """What became of answers."""

    outcomes: tuple[Outcome, ...] = Field(min_length=1, max_length=MAX_OUTCOMES)


class ModelOutcomeReport(OutcomeReport):
    """The same, of one model."""

    model: Name


class Standings(BaseModel):
    """All models whose release is known."""

    models: tuple[Standing, ...]


class Revisions(BaseModel):
    """A page of revisions, newest first."""

    revisions: tuple[Revision, ...]
    before: int | None = Field(description="ask for the next page with this; null at the end")


class Rollouts(BaseModel):
    """Rollouts, newest first."""

    rollouts: tuple[Rollout, ...]


class Receipts(BaseModel):
    """What was done with each outcome, in order."""

    receipts: tuple[Receipt, ...]


class Disagreements(BaseModel):
    """Shadow answers that differed, newest first."""

    disagreements: tuple[Mapping[str, Any], ...]


class Apply(Wanted):
    """A configuration to apply."""

    reason: str = _REASON
    dry_run: bool = Field(False, description="only plan")

    @property
    def wanted(self) -> Wanted:
        """The configuration alone."""
        return Wanted(overrides=self.overrides, config=self.config)


class DeploymentRollback(_Body):
    """Which deployment to go back to."""

    revision: int | None = Field(
        None,
        ge=1,
        le=MAX_NUMBER,
        description="null: the newest that served and is another than the one that runs",
    )
    reason: str = _REASON


class Deployments(BaseModel):
    """A page of deployments, newest first."""

    deployments: tuple[Deployment, ...]
    before: int | None = Field(description="ask for the next page with this; null at the end")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Difference(_Part):
    """One key whose value changes; null stands for a key that is not there."""

    key: str
    before: Any
    after: Any


class Change(_Part):
    """What becomes of the ingress, of ModelRouter or of one version."""

    name: str
    action: Literal["created", "removed", "restarted", "changed", "unchanged"]
    differences: tuple[Difference, ...] = Field(description="empty if all that differs is the code")


class ModelChange(_Part):
    """What becomes of one model."""

    name: str
    action: Literal["created", "removed", "changed", "unchanged"]
    versions: tuple[Change, ...]
    release: tuple[str, ...] = Field(description="what is different in the release, in words")
    differences: tuple[Difference, ...] = Field(description="what else clients see of the model")
    labels_gone: tuple[str, ...] = Field(description="labels that clients cannot ask for any more")


class Need(_Part):
    """Amounts of what Ray reserves; memory only where it is declared."""

    cpus: float
    gpus: float
    memory_bytes: float


class Resources(_Part):
    """What a plan needs against what there is."""

    now: Need
    after: Need
    peak: Need = Field(description="while old and new replicas run side by side")
    total: Need
    free: Need
    shortage: str = Field(description="why it can never run; empty when it can")
    warning: str = Field(description="what will be slow or narrow; empty when nothing is")


class Plan(_Part):
    """Everything that applying a configuration does; as `serve-app plan --json` prints it."""

    fresh: bool = Field(description="nothing is deployed yet")
    changes: bool = Field(description="anything changes at all")
    code: bool = Field(description="the program itself is another one, so everything restarts")
    gateway: tuple[Change, ...]
    models: tuple[ModelChange, ...]
    resources: Resources | None
    notices: tuple[str, ...] = Field(description="what clients will notice")
    refusals: tuple[str, ...] = Field(description="why it is not applied; empty when it is")


class Accepted(BaseModel):
    """A deployment that is carried out now."""

    revision: int
    plan: Plan


BODIES = (
    ReleaseChange,
    TrafficChange,
    Reason,
    Rollback,
    ModelOutcomeReport,
    OutcomeReport,
    Wanted,
    Apply,
    DeploymentRollback,
)
"""What requests carry: FastAPI documents it by name only, as our routes read it themselves."""
