"""What was deployed: when, by whom, why, what it changed, how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from deployments.plan import make_plan
from deployments.plan_view import summary
from deployments.terminal import WIDTH, out, say
from deployments.wording import ago
from serve_app.store.deployments import Deployment, DeploymentLog

FAILURES = 20
"""So many in a row may have failed between a listed deployment and the one it is compared with."""


def history(log: DeploymentLog, limit: int, before: int | None = None) -> list[dict[str, Any]]:
    """The newest deployments below `before`, newest first, each with what it changed."""
    rows = log.history(limit + FAILURES, before)
    complete = len(rows) < limit + FAILURES
    return [
        _account(each, rows[index + 1 :], complete=complete)
        for index, each in enumerate(rows[:limit])
    ]


def details(log: DeploymentLog, revision: int) -> dict[str, Any] | None:
    """One deployment, with its config and what was said while it was carried out."""
    rows = log.history(1 + FAILURES, revision + 1)
    if not rows or rows[0].revision != revision:
        return None
    return {
        **_account(rows[0], rows[1:], complete=len(rows) <= FAILURES),
        "progress": [event._asdict() for event in log.events(revision)],
        "config": dict(rows[0].config),
    }


def _account(row: Deployment, older: Sequence[Deployment], *, complete: bool) -> dict[str, Any]:
    return {
        "revision": row.revision,
        "created_at": row.created_at,
        "actor": row.actor,
        "outcome": row.outcome,
        "reason": row.reason,
        "changes": _changes(row, older, complete=complete),
    }


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
