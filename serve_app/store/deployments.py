"""The record of every `up`, `apply` and `rollback`: who applied what, when, why, how it ended."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, cast

from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from serve_app.config.cluster import DatabaseConfig
from serve_app.config.root import Config
from serve_app.domain.deployer import DeploymentOutcome
from serve_app.errors import ClusterError
from serve_app.store.engine import connect, describe, transaction
from serve_app.store.schema import migrate
from serve_app.store.stored import storable, utc
from serve_app.store.tables import DeploymentEventRow, DeploymentRow

_MAX_ACTOR = 255


@dataclass(frozen=True, slots=True)
class Deployment:
    """One `up`, `apply` or `rollback`."""

    revision: int
    created_at: datetime
    actor: str
    outcome: DeploymentOutcome
    reason: str
    """Why it was made, and why it failed if it did."""
    sha256: str
    """Of the document, as `digest` computes it: equal documents have equal digests."""
    config: Mapping[str, Any]
    document: Mapping[str, Any]


class Event(NamedTuple):
    """A line that was said while a deployment was carried out."""

    at: datetime
    text: str


class DeploymentLog:
    """Reads and writes the tables of deployments. Synchronous: not for an event loop."""

    def __init__(self, database: DatabaseConfig) -> None:
        """Opens the database and brings its schema up to date.

        Raises:
            ConfigError: the URL is wrong, or the password's variable is not set.
            ClusterError: the database cannot be used.
        """
        self._engine = connect(database)
        migrate(self._engine, "head")

    def record(
        self, actor: str, config: Config, document: Mapping[str, Any], reason: str = ""
    ) -> int:
        """Notes that a document is about to be applied.

        Args:
            actor: who does it.
            config: what was composed; it names secrets and holds none.
            document: the Serve document made from it.
            reason: why.

        Returns:
            The deployment's revision, which grows with each.
        """
        row = DeploymentRow(
            created_at=datetime.now(UTC),
            actor=storable(actor)[:_MAX_ACTOR],
            outcome="applying",
            reason=storable(reason),
            sha256=digest(document),
            config=config.model_dump(mode="json", by_alias=True),
            document=dict(document),
        )
        with transaction(self._engine) as connection, Session(connection) as session:
            session.add(row)
            session.flush()
            return _revision(row)

    def note(self, revision: int, text: str) -> None:
        """Keeps a line of what is said while a deployment is carried out."""
        row = DeploymentEventRow(deployment_id=revision, at=datetime.now(UTC), text=storable(text))
        with transaction(self._engine) as connection, Session(connection) as session:
            session.add(row)
            session.flush()

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

    def history(self, limit: int = 20, before: int | None = None) -> list[Deployment]:
        """The newest deployments below `before`, newest first."""
        rows = select(DeploymentRow)
        if before is not None:
            rows = rows.where(col(DeploymentRow.id) < before)
        return self._newest(rows, limit)

    def events(self, revision: int) -> list[Event]:
        """What was said while a deployment was carried out, in that order."""
        rows = (
            select(DeploymentEventRow)
            .where(DeploymentEventRow.deployment_id == revision)
            .order_by(col(DeploymentEventRow.id))
        )
        with self._reading() as session:
            return [Event(utc(row.at), row.text) for row in session.exec(rows)]

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        with (
            transaction(self._engine, read_only=True) as connection,
            Session(connection) as session,
        ):
            yield session

    def _newest(self, rows: SelectOfScalar[DeploymentRow], limit: int) -> list[Deployment]:
        statement = rows.order_by(col(DeploymentRow.id).desc()).limit(limit)
        with self._reading() as session:
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
        outcome=cast(DeploymentOutcome, row.outcome),
        reason=row.reason,
        sha256=row.sha256,
        config=row.config,
        document=row.document,
    )
