"""Connections to the database, and its errors in our words.

The engine of this module is synchronous, for the command line. It keeps no connection open between
two transactions, so that nothing has to be closed. That of servers is in `serve_app.store.database`
and follows the same rules. PgBouncer may pool by transaction: no setting outlives one.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from json import JSONDecodeError
from pathlib import Path
from sqlite3 import Connection as SqliteConnection
from typing import Any

from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from serve_app.config.cluster import DatabaseConfig
from serve_app.errors import ClusterError, ConfigError

BUSY_TIMEOUT_MS = 5_000
CONNECT_TIMEOUT_S = 5
LOCK_TIMEOUT_MS = 5_000
STATEMENT_TIMEOUT_MS = 30_000

_MODEL_LOCKS = 7_371_823_000_000
"""An arbitrary number: where the locks of models begin among PostgreSQL's advisory locks."""

_DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "sqlite+pysqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
"""What `database.url` may begin with -> the driver that is used."""

_POSTGRESQL_ARGUMENTS = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    "prepare_threshold": None,
    # A server that is gone without a word is noticed, whether we wait for it or write to it.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


def connect(database: DatabaseConfig) -> Engine:
    """An engine for the configured database; nothing is opened yet.

    Raises:
        ConfigError: the URL is malformed or not supported, or the password's variable is not set.
    """
    url = address(database)
    engine = create_engine(url, poolclass=NullPool, **options(url))
    keep_rules(engine)
    return engine


def address(database: DatabaseConfig) -> URL:
    """The database's URL with the synchronous driver, and with the password.

    Raises:
        ConfigError: see `connect`.
    """
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


def options(url: URL) -> dict[str, Any]:
    """What every engine for a database is made with, whatever its driver and its pool."""
    # PostgreSQL takes no NaN in JSON, so SQLite gets none either.
    shared: dict[str, Any] = {"json_serializer": partial(json.dumps, allow_nan=False)}
    if url.get_backend_name() == "postgresql":
        shared["connect_args"] = _POSTGRESQL_ARGUMENTS
    return shared


def keep_rules(engine: Engine) -> None:
    """Makes every connection and every transaction of an engine follow the rules below."""
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        event.listen(engine, "begin", _begin_postgresql)


def sqlite_file(engine: Engine) -> Path | None:
    """The file of an SQLite database."""
    name = engine.url.database
    if engine.dialect.name != "sqlite" or name is None:
        return None
    return Path(name.removeprefix("file:").partition("?")[0])


def make_folder(engine: Engine) -> None:
    """Makes the folder of an SQLite file, as the driver makes the file only.

    Raises:
        ClusterError: it cannot be made.
    """
    path = sqlite_file(engine)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ClusterError(f"{describe(engine)}: {exc}") from exc


def describe(engine: Engine) -> str:
    """The database for a message, without its password."""
    url = engine.url.set(drivername=engine.url.get_backend_name())
    return f"database {url.render_as_string(hide_password=True)}"


@contextmanager
def transaction(engine: Engine, *, read_only: bool = False) -> Iterator[Connection]:
    """One transaction: committed at the end, rolled back on any error.

    Args:
        engine: of the database.
        read_only: it writes nothing, and waits for no writer.

    Raises:
        ClusterError: the database cannot do it.
    """
    with translated(engine), engine.connect() as connection:
        connection.execution_options(**{READ_ONLY: read_only})
        with connection.begin():
            yield connection


def lock(connection: Connection, number: int) -> None:
    """Waits until no other transaction holds the lock of this number; ours does until it ends.

    SQLite has one writer at a time anyway.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})


def lock_model(connection: Connection, model: str) -> None:
    """Lets nobody else change what is stored of this model before our transaction ends."""
    lock(connection, _MODEL_LOCKS + zlib.crc32(model.encode()))


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Turns the errors of SQLAlchemy and Alembic into ours, without the SQL and its values."""
    try:
        yield
    except DBAPIError as exc:
        said = " ".join(str(exc.orig).split())
        raise ClusterError(f"{describe(engine)}: {said}{_hint(said)}") from exc
    except (SQLAlchemyError, CommandError, JSONDecodeError) as exc:
        said = str(exc).partition("\n")[0]
        raise ClusterError(f"{describe(engine)}: {said}{_hint(said)}") from exc


_HINTS = {
    "database is locked": "another process is writing to it; try again",
    "readonly database": "it is not writable for this user",
    "unable to open": "check that the folder exists and is writable",
    "not a database": "the file is damaged or something else; restore a backup",
    "malformed": "the file is damaged; restore a backup",
    "Can't locate revision": "it was written by a newer release of serve-app; use that one",
    "Connection refused": "is PostgreSQL running there?",
}


def _hint(said: str) -> str:
    return next((f" ({hint})" for part, hint in _HINTS.items() if part in said), "")


def _prepare_sqlite(connection: SqliteConnection, _record: object) -> None:
    # The driver must not begin transactions by itself: it would begin them without the write lock.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


READ_ONLY = "serve_app_read_only"
"""Execution option of a connection: its transaction writes nothing, and waits for no writer."""


def _begin_sqlite(connection: Connection) -> None:
    if connection.get_execution_options().get(READ_ONLY):
        connection.exec_driver_sql("BEGIN")
    else:
        # Waits for the write lock here, where waiting is possible, and not in the middle.
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_postgresql(connection: Connection) -> None:
    if connection.get_execution_options().get(READ_ONLY):
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
    # For this transaction only: behind PgBouncer the session belongs to others as well.
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}")
