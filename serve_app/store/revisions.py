"""Revisions of releases: appended and read, never changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import Field
from sqlalchemy import Connection, Row, Select, func, insert, select
from sqlmodel import col

from serve_app.domain.control import Author, Revision
from serve_app.domain.release import Release
from serve_app.domain.release_diff import changes
from serve_app.errors import RevisionConflict, RevisionNotFound
from serve_app.store.engine import lock_model
from serve_app.store.stored import storable, utc
from serve_app.store.tables import RevisionRow


@dataclass(frozen=True, slots=True)
class RevisionDraft:
    """A revision that has no number yet."""

    model: str
    release: Release
    author: Author
    config_digest: str
    """Of the desired release in the config that this one was derived from."""


class StoredRevision(Revision):
    """A revision with what only ModelRouter needs."""

    rollout_id: int | None = Field(description="the rollout that it is a step of")


def expect(connection: Connection, model: str, expected: int | None) -> None:
    """Makes sure that a revision is in force, and stays so until our transaction ends.

    Args:
        connection: its transaction may write.
        model: whose.
        expected: its number, 0 for none; None is content with whatever there is.

    Raises:
        RevisionConflict: another one is in force.
    """
    lock_model(connection, model)
    before = newest(connection, model)
    actual = before.number if before is not None else 0
    if expected not in (None, actual):
        raise RevisionConflict(model, expected or 0, actual)


def append(connection: Connection, draft: RevisionDraft, rollout_id: int | None) -> StoredRevision:
    """Puts a release in force, as a step of a rollout or on its own."""
    lock_model(connection, draft.model)
    before = newest(connection, draft.model)
    revision = StoredRevision(
        model=draft.model,
        number=before.number + 1 if before else 1,
        created_at=datetime.now(UTC),
        actor=storable(draft.author.actor)[:255],
        reason=storable(draft.author.reason),
        release=draft.release,
        changes=changes(before.release if before else None, draft.release),
        config_digest=draft.config_digest,
        rollout_id=rollout_id,
    )
    connection.execute(
        insert(RevisionRow).values(
            **revision.model_dump(exclude={"release", "changes"}),
            release=revision.release.model_dump(mode="json"),
            changes=list(revision.changes),
        )
    )
    return revision


def newest(connection: Connection, model: str) -> StoredRevision | None:
    """The revision in force."""
    return next(iter(history(connection, model, 1, None)), None)


def newest_of_all(connection: Connection) -> list[StoredRevision]:
    """The revision in force of every model. Reads the whole index: for the start of a router."""
    numbers = (
        select(col(RevisionRow.model), func.max(col(RevisionRow.number)).label("number"))
        .group_by(col(RevisionRow.model))
        .subquery()
    )
    return _all(
        connection,
        select(RevisionRow).join(
            numbers,
            (col(RevisionRow.model) == numbers.c.model)
            & (col(RevisionRow.number) == numbers.c.number),
        ),
    )


def history(
    connection: Connection, model: str, limit: int, before: int | None
) -> Sequence[StoredRevision]:
    """The newest revisions below a number, newest first."""
    rows = select(RevisionRow).where(col(RevisionRow.model) == model)
    if before is not None:
        rows = rows.where(col(RevisionRow.number) < before)
    return _all(connection, rows.order_by(col(RevisionRow.number).desc()).limit(limit))


def get(connection: Connection, model: str, number: int) -> StoredRevision:
    """One revision.

    Raises:
        RevisionNotFound: there is none of this number.
    """
    rows = select(RevisionRow).where(
        col(RevisionRow.model) == model, col(RevisionRow.number) == number
    )
    found = _all(connection, rows)
    if not found:
        raise RevisionNotFound(model, number)
    return found[0]


def _all(connection: Connection, rows: Select[RevisionRow]) -> list[StoredRevision]:
    return [_revision(row) for row in connection.execute(rows)]


def _revision(row: Row[RevisionRow]) -> StoredRevision:
    return StoredRevision.model_validate(
        {**row._mapping, "created_at": utc(row.created_at), "release": row.release}
    )
