from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from serve_app.config.cluster import DatabaseConfig
from serve_app.errors import ClusterError, ConfigError
from serve_app.store import engine as engine_module
from serve_app.store.deployments import DeploymentLog
from serve_app.store.engine import connect, transaction
from serve_app.store.schema import upgrade
from tests.unit.store.deployment_suite import DOCUMENT, config


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "serve-app.db"


@pytest.fixture
def database(file: Path) -> DatabaseConfig:
    return DatabaseConfig(url=f"sqlite:///{file}")


@contextmanager
def write_lock(file: Path) -> Iterator[None]:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def test_sqlite_is_set_up_to_lose_nothing(database: DatabaseConfig) -> None:
    with transaction(connect(database)) as connection:
        pragmas = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        }
    full = 2
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": full,
        "busy_timeout": 5000,
        "foreign_keys": 1,
    }


def test_an_error_rolls_everything_back(database: DatabaseConfig) -> None:
    upgrade(database)
    log = DeploymentLog(database)

    def write_and_fail() -> None:
        with transaction(connect(database)) as connection:
            connection.execute(text("DROP TABLE deployment"))
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        write_and_fail()
    assert log.history() == []


def test_a_locked_database(
    database: DatabaseConfig, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = DeploymentLog(database)
    monkeypatch.setattr(engine_module, "BUSY_TIMEOUT_MS", 50)
    with (
        write_lock(file),
        pytest.raises(ClusterError, match=r"serve-app\.db: database is locked .*try again"),
    ):
        log.record("ada", config(database), DOCUMENT)
    log.record("ada", config(database), DOCUMENT)
    assert len(log.history()) == 1


def test_a_short_lock_is_waited_for(database: DatabaseConfig, file: Path) -> None:
    log = DeploymentLog(database)
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.2, lambda: other.execute("COMMIT"))
        timer.start()
        log.record("ada", config(database), DOCUMENT)
        timer.join()
    assert len(log.history()) == 1


@pytest.mark.parametrize("content", [b"not a database at all " * 400, b"SQLite format 3\0" * 300])
def test_a_damaged_file(database: DatabaseConfig, file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ClusterError, match=r"serve-app\.db: file is not a database .*backup"):
        DeploymentLog(database)
    assert file.read_bytes() == content


def test_damage_inside_the_file(database: DatabaseConfig, file: Path) -> None:
    log = DeploymentLog(database)
    for _ in range(50):
        log.record("ada" * 80, config(database), DOCUMENT)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    file.write_bytes(content)
    with pytest.raises(ClusterError, match=r"malformed \(the file is damaged; restore a backup\)"):
        log.history()


def test_a_read_only_database(file: Path, database: DatabaseConfig) -> None:
    log = DeploymentLog(database)
    log.finish(log.record("ada", config(database), DOCUMENT), "applied", "")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    read_only = DatabaseConfig(url=f"sqlite:///file:{file}?mode=ro&uri=true")
    with pytest.raises(ClusterError, match=r"readonly database \(it is not writable"):
        DeploymentLog(read_only)


def test_the_path_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"unable to open database file \(check"):
        DeploymentLog(DatabaseConfig(url=f"sqlite:///{tmp_path}"))


def test_the_folder_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("")
    with pytest.raises(ClusterError, match=r"database sqlite.*var"):
        DeploymentLog(DatabaseConfig(url=f"sqlite:///{tmp_path}/var/serve-app.db"))


@pytest.mark.parametrize(
    ("url", "text_of_error"),
    [
        ("sqlite+aiosqlite:////srv/x.db", "'sqlite\\+aiosqlite' is not one of"),
        ("postgresql+asyncpg://h/d", "'postgresql\\+asyncpg' is not one of"),
        ("sqlite:no-slashes", "not a URL"),
        ("postgresql://host:not-a-port/d", "not a URL"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
    ],
)
def test_urls_that_cannot_be_used(url: str, text_of_error: str) -> None:
    with pytest.raises(ConfigError, match=text_of_error):
        connect(DatabaseConfig.model_construct(url=url, password_env=None))


def test_the_password_comes_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    database = DatabaseConfig.model_validate(
        {"url": "postgresql://serve@127.0.0.1:1/serve", "password_env": "SERVE_DB_PASSWORD"}
    )
    monkeypatch.delenv("SERVE_DB_PASSWORD", raising=False)
    with pytest.raises(ConfigError, match="SERVE_DB_PASSWORD is not set"):
        connect(database)
    monkeypatch.setenv("SERVE_DB_PASSWORD", "s3cr3t@/:")
    assert connect(database).url.password == "s3cr3t@/:"
    with pytest.raises(ClusterError) as caught:
        DeploymentLog(database)
    assert "Connection refused" in str(caught.value)
    assert "is PostgreSQL running there?" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_nothing_stays_open(database: DatabaseConfig, file: Path) -> None:
    DeploymentLog(database).history()
    # The last connection to close removes the write-ahead log.
    assert not file.with_name(f"{file.name}-wal").exists()


def test_a_reader_waits_for_no_writer(database: DatabaseConfig, file: Path) -> None:
    log = DeploymentLog(database)
    log.note(log.record("ada", config(database), DOCUMENT), "said")
    with write_lock(file):
        (row,) = log.history()
        assert [event.text for event in log.events(row.revision)] == ["said"]
