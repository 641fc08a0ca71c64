"""The record of every `serve-app up`: who applied what, when, and how it ended."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from serve_app.config.cluster import DatabaseConfig
from serve_app.config.root import Config
from serve_app.errors import ClusterError
from serve_app.store.engine import connect, describe, transaction
from serve_app.store.schema import migrate
from serve_app.store.stored import storable, utc
from serve_app.store.tables import DeploymentRow

Outcome = Literal["applying", "applied", "failed"]

_MAX_ACTOR = 255


@dataclass(frozen=True, slots=True)
class Deployment:
    """One `serve-app up`."""

    revision: int
    created_at: datetime
    actor: str
    outcome: Outcome
    reason: str
    """Why it failed; empty otherwise."""
    sha256: str
    """Of the document, as `digest` computes it: equal documents have equal digests."""
    config: Mapping[str, Any]
    document: Mapping[str, Any]


class DeploymentLog:
    """Reads and writes the table `deployment`. Synchronous: for the command line."""

    def __init__(self, database: DatabaseConfig) -> None:
        """Opens the database and brings its schema up to date.

        Raises:
            ConfigError: the URL is wrong, or the password's variable is not set.
            ClusterError: the database cannot be used.
        """
        self._engine = connect(database)
        migrate(self._engine, "head")

    def record(self, actor: str, config: Config, document: Mapping[str, Any]) -> int:
        """Notes that a document is about to be applied.

        Args:
            actor: who does it.
            config: what was composed; it names secrets and holds none.
            document: the Serve document made from it.

        Returns:
            The deployment's revision, which grows with each.
        """
        row = DeploymentRow(
            created_at=datetime.now(UTC),
            actor=storable(actor)[:_MAX_ACTOR],
            outcome="applying",
            reason="",
            sha256=digest(document),
            config=config.model_dump(mode="json", by_alias=True),
            document=dict(document),
        )
        with transaction(self._engine) as connection, Session(connection) as session:
            session.add(row)
            session.flush()
            return _revision(row)

    def finish(self, revision: int, outcome: Literal["applied", "failed"], reason: str) -> None:
        """Notes how a deployment ended, once.

        Raises:
            ClusterError: there is no such deployment, or it has ended already.
        """
        with transaction(self._engine) as connection, Session(connection) as session:
            row = session.get(DeploymentRow, revision, with_for_update=True)
            if row is None or row.outcome != "applying":
                raise ClusterError(f"{describe(self._engine)}: revision {revision} is not applying")
            row.outcome, row.reason = outcome, storable(reason)
            session.flush()

    def find(self, revision: int) -> Deployment | None:
        """The deployment with this revision, if there is one."""
        return next(
            iter(self._newest(select(DeploymentRow).where(col(DeploymentRow.id) == revision), 1)),
            None,
        )

    def latest_applied(self) -> Deployment | None:
        """The newest deployment that succeeded."""
        applied = select(DeploymentRow).where(DeploymentRow.outcome == "applied")
        return next(iter(self._newest(applied, 1)), None)

    def history(self, limit: int = 20) -> list[Deployment]:
        """The newest deployments, newest first."""
        return self._newest(select(DeploymentRow), limit)

    def _newest(self, rows: SelectOfScalar[DeploymentRow], limit: int) -> list[Deployment]:
        statement = rows.order_by(col(DeploymentRow.id).desc()).limit(limit)
        with transaction(self._engine) as connection, Session(connection) as session:
            return [_deployment(row) for row in session.exec(statement)]


def digest(document: Mapping[str, Any]) -> str:
    """The sha256 of a document, whatever the order of its keys."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _revision(row: DeploymentRow) -> int:
    if row.id is None:
        raise ClusterError("the database gave the new deployment no id")
    return row.id


def _deployment(row: DeploymentRow) -> Deployment:
    return Deployment(
        revision=_revision(row),
        created_at=utc(row.created_at),
        actor=row.actor,
        outcome=cast(Outcome, row.outcome),
        reason=row.reason,
        sha256=row.sha256,
        config=row.config,
        document=row.document,
    )
