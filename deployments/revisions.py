"""`serve-app rollback`: a former deployment once more."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from deployments.apply import alone, apply
from deployments.home import interruptible
from deployments.live import document as running_document
from deployments.manifest import Document, same
from deployments.preflight import check_artifacts
from deployments.target import Target, running_target
from deployments.terminal import say
from serve_app.config.root import Config
from serve_app.errors import ConfigError, PlanRefused
from serve_app.store.deployments import Deployment, DeploymentLog

HERE = frozenset({"address", "gcs_port", "dashboard_port", "num_cpus", "num_gpus"}) | {
    "object_store_mib",
    "ready_timeout_s",
    "settle_s",
}
"""Settings of `cluster` that say how it is reached and driven, not what it runs."""


def rollback(config: Config, home: Path, actor: str, revision: int | None, reason: str = "") -> int:
    """Puts a former deployment back, recorded as a new revision.

    Args:
        config: how the cluster and the database are reached today.
        home: the folder for state and caches.
        actor: who does it.
        revision: of the deployment; None takes the newest that succeeded and is another than the
            one that runs.
        reason: why.

    Returns:
        The revision that was put back.

    Raises:
        ConfigError: there is no such deployment, it cannot be read any more, or an artifact of it
            is gone.
        PlanRefused: it never served, or see `deployments.apply.apply`.
        ClusterError: see there.
    """
    with interruptible(), alone(config, home) as log:
        target = running_target(config, home)
        row, wanted = former(config, home, target, log, revision)
        say(f"Rolling back to revision {row.revision}, applied by {row.actor}")
        apply(wanted, home, target, log, actor, note_of(row, reason))
    return row.revision


def former(
    today: Config, home: Path, target: Target, log: DeploymentLog, revision: int | None
) -> tuple[Deployment, Config]:
    """The deployment to put back, and its configuration for today's cluster; see `rollback`."""
    row = _chosen(log, revision, target)
    stored = stored_config(row)
    here = today.cluster.model_dump(include=set(HERE))
    wanted = stored.model_copy(
        update={
            "cluster": stored.cluster.model_copy(update=here),
            "database": today.database,
        }
    )
    if target.node is not None:
        check_artifacts(wanted, home)
    return row, wanted


def stored_config(row: Deployment) -> Config:
    """The configuration of a deployment.

    Raises:
        ConfigError: this release of the program cannot read it.
    """
    try:
        return Config.model_validate(row.config)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"Revision {row.revision} was written by another release of serve-app, and its "
            f"configuration does not fit this one: {where}: {first['msg']}"
        ) from error


def note_of(row: Deployment, reason: str) -> str:
    """Why a former deployment is put back, for the record."""
    note = f"rollback to revision {row.revision}"
    return f"{note}: {reason}" if reason else note


def _chosen(log: DeploymentLog, revision: int | None, target: Target) -> Deployment:
    if revision is not None:
        row = log.find(revision)
        if row is None:
            raise ConfigError(f"There is no revision {revision}. List them with: serve-app history")
        if row.outcome != "applied":
            raise PlanRefused(f"Revision {revision} never served (it is {row.outcome}).")
        return row
    with target.api() as api:
        running = running_document(api.details())
    for row in log.history(limit=1000):
        if row.outcome == "applied" and not _runs(running, row):
            return row
    raise PlanRefused("There is no former deployment to go back to.")


def _runs(running: Document | None, row: Deployment) -> bool:
    return running is not None and same(running, dict(row.document))
