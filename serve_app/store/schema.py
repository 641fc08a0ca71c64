"""Brings a database to the schema of this release, by the migrations beside this module."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine

from serve_app.config.cluster import DatabaseConfig
from serve_app.store.engine import connect, lock, make_folder, transaction

_MIGRATION_LOCK = 7_371_823_001
"""An arbitrary number that stands for our migrations among PostgreSQL's advisory locks."""


def upgrade(database: DatabaseConfig) -> None:
    """Creates or upgrades all tables; does nothing where they are current.

    All or nothing, and one process at a time.

    Raises:
        ConfigError: see `connect`.
        ClusterError: the database is not there, damaged, locked, or of a newer release.
    """
    migrate(connect(database), "head")


def migrate(engine: Engine, revision: str, *, down: bool = False) -> None:
    """Goes to a revision; see `upgrade`."""
    make_folder(engine)
    with transaction(engine) as connection:
        move(connection, revision, down=down)


def move(connection: Connection, revision: str, *, down: bool = False) -> None:
    """Goes to a revision within the transaction that is open; one process at a time."""
    lock(connection, _MIGRATION_LOCK)
    config = migrations(connection)
    if down:
        command.downgrade(config, revision)
    else:
        command.upgrade(config, revision)


def migrations(connection: Connection) -> Config:
    """Alembic's configuration for our migrations over a connection with an open transaction."""
    config = Config()
    config.set_main_option("script_location", "serve_app.store:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
