"""`serve-app history` and `rollback`: what was deployed, and one of them again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.table import Table

from deployments.apply import alone, apply
from deployments.home import changing
from deployments.live import document as running_document
from deployments.manifest import Document, same
from deployments.plan import make_plan
from deployments.plan_view import summary
from deployments.preflight import check_artifacts
from deployments.target import Target, running_target
from deployments.terminal import WIDTH, out, say
from deployments.wording import ago
from serve_app.config.root import Config
from serve_app.errors import ConfigError
from serve_app.store.deployments import Deployment, DeploymentLog

HERE = frozenset({"address", "gcs_port", "dashboard_port", "num_cpus", "num_gpus"}) | {
    "object_store_mib",
    "ready_timeout_s",
    "settle_s",
}
"""Settings of `cluster` that say how it is reached and driven, not what it runs."""

FAILURES = 20
"""So many in a row may have failed between a listed deployment and the one it is compared with."""


def history(config: Config, limit: int) -> list[dict[str, Any]]:
    """The newest deployments, newest first, each with what it changed."""
    rows = DeploymentLog(config.database).history(limit + FAILURES)
    complete = len(rows) < limit + FAILURES
    return [
        {
            "revision": each.revision,
            "created_at": each.created_at,
            "actor": each.actor,
            "outcome": each.outcome,
            "reason": each.reason,
            "changes": _changes(each, rows[index + 1 :], complete=complete),
        }
        for index, each in enumerate(rows[:limit])
    ]


def _changes(row: Deployment, older: Sequence[Deployment], *, complete: bool) -> str:
    """What a deployment changed, or would have, against the last one that succeeded before it."""
    former = next((each for each in older if each.outcome == "applied"), None)
    if former is None and not complete:
        return "?"
    before = dict(former.document) if former is not None else None
    return summary(make_plan(before, dict(row.document), traffic={}))


def show_history(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the deployments as a table that fits 100 columns."""
    if not rows:
        say("Nothing has been deployed with this database yet.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("revision", justify="right")
    table.add_column("when", no_wrap=True)
    table.add_column("who", max_width=16, overflow="ellipsis", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    table.add_column("what changed", overflow="fold")
    for row in rows:
        what = "\n".join(part for part in (row["changes"], row["reason"]) if part)
        when = ago(row["created_at"])
        table.add_row(str(row["revision"]), when, row["actor"], row["outcome"], what)
    out.print(table, width=WIDTH, markup=False)


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
        ClusterError: see `deployments.apply.apply`.
    """
    with changing(home):
        target = running_target(config, home)
        with alone(config) as log:
            row = _chosen(log, revision, target)
            former = _former(row, config)
            if target.node is not None:
                check_artifacts(former, home)
            say(f"Rolling back to revision {row.revision}, applied by {row.actor}")
            note = f"rollback to revision {row.revision}" + (f": {reason}" * bool(reason))
            apply(former, home, target, log, actor, note)
    return row.revision


def _chosen(log: DeploymentLog, revision: int | None, target: Target) -> Deployment:
    if revision is not None:
        row = log.find(revision)
        if row is None:
            raise ConfigError(f"There is no revision {revision}. List them with: serve-app history")
        if row.outcome != "applied":
            raise ConfigError(f"Revision {revision} never served (it is {row.outcome}).")
        return row
    with target.api() as api:
        running = running_document(api.details())
    for row in log.history(limit=1000):
        if row.outcome == "applied" and not _runs(running, row):
            return row
    raise ConfigError("There is no former deployment to go back to.")


def _runs(running: Document | None, row: Deployment) -> bool:
    return running is not None and same(running, dict(row.document))


def _former(row: Deployment, today: Config) -> Config:
    """The stored configuration, on today's cluster and with today's database."""
    try:
        stored = Config.model_validate(row.config)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"Revision {row.revision} was written by another release of serve-app, and its "
            f"configuration does not fit this one: {where}: {first['msg']}"
        ) from error
    here = today.cluster.model_dump(include=set(HERE))
    return stored.model_copy(
        update={
            "cluster": stored.cluster.model_copy(update=here),
            "database": today.database,
        }
    )
