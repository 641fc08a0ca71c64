"""Connections to the database, and its errors in our words.

The engine is synchronous: only the command line writes. It keeps no connection open between two
transactions, so that nothing has to be closed and PgBouncer may pool by transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from sqlite3 import Connection as SqliteConnection

from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from serve_app.config.cluster import DatabaseConfig
from serve_app.errors import ClusterError, ConfigError

BUSY_TIMEOUT_MS = 5_000
CONNECT_TIMEOUT_S = 5
LOCK_TIMEOUT_MS = 5_000
STATEMENT_TIMEOUT_MS = 30_000

_DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "sqlite+pysqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
"""What `database.url` may begin with -> the driver that is used."""


def connect(database: DatabaseConfig) -> Engine:
    """An engine for the configured database; nothing is opened yet.

    Raises:
        ConfigError: the URL is malformed or not supported, or the password's variable is not set.
    """
    url = _url(database)
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, poolclass=NullPool)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    engine = create_engine(
        url,
        poolclass=NullPool,
        connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "prepare_threshold": None},
    )
    event.listen(engine, "begin", _begin_postgresql)
    return engine


def _url(database: DatabaseConfig) -> URL:
    try:
        url = make_url(database.url)
    except (ArgumentError, ValueError) as exc:
        raise ConfigError("database.url: not a URL such as sqlite:////srv/serve-app.db") from exc
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise ConfigError(f"database.url: {url.drivername!r} is not one of {', '.join(_DRIVERS)}")
    if driver.startswith("sqlite") and url.database in (None, "", ":memory:"):
        raise ConfigError("database.url: name a file; a database in memory forgets everything")
    url = url.set(drivername=driver)
    if database.password_env is not None:
        url = url.set(password=database.password_env.read())
    return url


def make_folder(engine: Engine) -> None:
    """Makes the folder of an SQLite file, as the driver makes the file only.

    Raises:
        ClusterError: it cannot be made.
    """
    name = engine.url.database
    if engine.url.get_backend_name() != "sqlite" or name is None:
        return
    path = Path(name.removeprefix("file:"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ClusterError(f"{describe(engine)}: {exc}") from exc


def describe(engine: Engine) -> str:
    """The database for a message, without its password."""
    url = engine.url.set(drivername=engine.url.get_backend_name())
    return f"database {url.render_as_string(hide_password=True)}"


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction: committed at the end, rolled back on any error.

    Raises:
        ClusterError: the database cannot do it.
    """
    with translated(engine), engine.begin() as connection:
        yield connection


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Turns the errors of SQLAlchemy and Alembic into ours, without the SQL and its values."""
    try:
        yield
    except DBAPIError as exc:
        text = " ".join(str(exc.orig).split())
        raise ClusterError(f"{describe(engine)}: {text}{_hint(text)}") from exc
    except (SQLAlchemyError, CommandError, JSONDecodeError) as exc:
        text = str(exc).partition("\n")[0]
        raise ClusterError(f"{describe(engine)}: {text}{_hint(text)}") from exc


_HINTS = {
    "database is locked": "another process is writing to it; try again",
    "readonly database": "it is not writable for this user",
    "unable to open": "check that the folder exists and is writable",
    "not a database": "the file is damaged or something else; restore a backup",
    "malformed": "the file is damaged; restore a backup",
    "Can't locate revision": "it was written by a newer release of serve-app; use that one",
    "Connection refused": "is PostgreSQL running there?",
}


def _hint(text: str) -> str:
    return next((f" ({hint})" for part, hint in _HINTS.items() if part in text), "")


def _prepare_sqlite(connection: SqliteConnection, _record: object) -> None:
    # The driver must not begin transactions by itself: it would begin them without the write lock.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    # Waits for the write lock here, where waiting is possible, and not in the middle.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_postgresql(connection: Connection) -> None:
    # For this transaction only: behind PgBouncer the session belongs to others as well.
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}")
