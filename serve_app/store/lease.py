"""The right to apply a deployment: one process at a time per database, and none that has died."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from serve_app.config.cluster import DatabaseConfig
from serve_app.errors import ClusterError, DeploymentConflict
from serve_app.store.engine import connect, describe, make_folder, sqlite_file, translated

_APPLY_LOCK = 7_371_823_002
"""An arbitrary number that stands for a running apply among PostgreSQL's advisory locks."""


@contextmanager
def applying(database: DatabaseConfig) -> Iterator[None]:
    """Holds the right to apply; it ends with the block, and with the process.

    No clock is involved: whoever is killed leaves no lease behind that has to run out.

    Raises:
        ConfigError: see `serve_app.store.engine.connect`.
        DeploymentConflict: another process holds it.
        ClusterError: the database cannot be used.
    """
    engine = connect(database)
    hold = _lock_file if engine.url.get_backend_name() == "sqlite" else _lock_session
    with hold(engine):
        yield


def _conflict(engine: Engine) -> DeploymentConflict:
    return DeploymentConflict(f"another apply is at work on {describe(engine)}")


@contextmanager
def _lock_file(engine: Engine) -> Iterator[None]:
    """SQLite has one machine: a file beside the database. Its own lock must stay free to write."""
    make_folder(engine)
    path = Path(f"{sqlite_file(engine)}.applying")
    try:
        lock = path.open("w")
    except OSError as error:
        raise ClusterError(f"{describe(engine)}: {error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise _conflict(engine) from error
        yield


@contextmanager
def _lock_session(engine: Engine) -> Iterator[None]:
    """PostgreSQL: a transaction that stays open and reads nothing.

    A lock of the transaction, not of the session: behind PgBouncer a session belongs to others as
    well. If the connection breaks meanwhile, so does the lease; the comparison right before the
    document is sent is the second line.
    """
    with translated(engine):
        connection = engine.connect()
    try:
        with translated(engine):
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            answer = connection.execute(
                text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _APPLY_LOCK}
            )
            if not answer.scalar():
                raise _conflict(engine)
        yield
    finally:
        with suppress(SQLAlchemyError):  # a connection that broke holds nothing any more
            connection.rollback()
        with suppress(SQLAlchemyError):
            connection.close()
