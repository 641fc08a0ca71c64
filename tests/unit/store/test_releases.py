from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import text

from serve_app.config.cluster import DatabaseConfig
from serve_app.errors import ConfigError, StoreUnavailable
from serve_app.store import engine as engine_module
from serve_app.store.database import GRACE_S, Database
from serve_app.store.engine import connect, transaction
from serve_app.store.releases import ReleaseStore
from tests.unit.store.plans import everyday, fill, recorded, scans
from tests.unit.store.release_suite import NOW, ReleaseSuite, draft, exposure


class TestReleasesOnSqlite(ReleaseSuite):
    @pytest.fixture
    def database(self, tmp_path: Path) -> DatabaseConfig:
        return DatabaseConfig(url=f"sqlite:///{tmp_path}/not/there yet/serve-app.db")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "serve-app.db"


@pytest.fixture
def database(file: Path) -> DatabaseConfig:
    return DatabaseConfig(url=f"sqlite:///{file}", timeout_s=2.0)


@pytest_asyncio.fixture
async def store(database: DatabaseConfig) -> AsyncIterator[ReleaseStore]:
    store = ReleaseStore(database)
    yield store
    await store.close()


@contextmanager
def write_lock(file: Path) -> Iterator[None]:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


async def test_no_everyday_statement_reads_a_whole_table(
    store: ReleaseStore, database: DatabaseConfig
) -> None:
    await fill(store, database)
    with recorded() as statements:
        await everyday(store)
    with transaction(connect(database)) as connection:
        assert scans(connection, statements) == []
    verbs = {statement.split()[0] for statement, _ in statements}
    assert {"SELECT", "INSERT", "UPDATE", "DELETE"} <= verbs


async def test_a_scan_would_be_found(store: ReleaseStore, database: DatabaseConfig) -> None:
    await fill(store, database)
    with transaction(connect(database)) as connection:
        for column in ("prediction", "at"):
            assert scans(connection, [(f"SELECT 1 FROM exposure WHERE {column} = 5", ())])


async def test_every_connection_follows_the_rules(database: DatabaseConfig) -> None:
    pool = Database(database)
    pragmas = await asyncio.gather(
        *[
            pool.read(
                lambda connection: [
                    connection.execute(text(f"PRAGMA {name}")).scalar()
                    for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
                ]
            )
            for _ in range(8)
        ]
    )
    await pool.close()
    full = 2
    assert all(each == ["wal", full, 5000, 1] for each in pragmas)


async def test_reading_waits_for_no_writer(store: ReleaseStore, file: Path) -> None:
    await store.append(draft(), 0)
    with write_lock(file):
        assert await store.current("digits") is not None
        assert await store.aggregates("digits", 0) == {}


async def test_another_writer_holds_the_lock(
    store: ReleaseStore,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(engine_module, "BUSY_TIMEOUT_MS", 50)
    caplog.set_level(logging.INFO, logger="serve_app.store.database")
    await store.append(draft(), 0)
    with write_lock(file):
        for _ in range(3):
            with pytest.raises(StoreUnavailable) as caught:
                await store.append(draft(), 1)
    assert "database is locked (another process is writing to it" in caught.value.reason
    assert str(file) not in str(caught.value)
    assert (await store.append(draft(), 1)).revision.number == 2
    # An outage is two lines in the log, however often it is met.
    gone, back = [each.message for each in caplog.records]
    assert gone == f"cannot use the {caught.value.reason}"
    assert back == "the database is back"


async def test_a_lock_that_is_never_given_back(
    store: ReleaseStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "BUSY_TIMEOUT_MS", 3_600_000)
    await store.append(draft(), 0)
    with write_lock(file):
        began = time.monotonic()
        # As many as the pool has connections: each of them is left to its thread.
        results = await asyncio.gather(
            *[store.append(draft(), 1) for _ in range(4)], return_exceptions=True
        )
        assert [type(each) for each in results] == [StoreUnavailable] * 4
        assert time.monotonic() - began < 2.0 + GRACE_S + 5
    while True:
        try:
            await store.append(draft(), None)
            return
        except StoreUnavailable:
            assert time.monotonic() - began < 60


async def test_what_was_given_up_is_not_made_later(store: ReleaseStore, file: Path) -> None:
    await store.append(draft(), 0)
    with write_lock(file):
        with pytest.raises(StoreUnavailable):
            await store.append(draft(), 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await store.append(draft(), 1)
    while store._database._running:  # now both get the lock  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    assert [each.number for each in await store.history("digits")] == [1]


async def test_an_error_of_the_caller_rolls_back_and_is_no_fault_of_the_database(
    database: DatabaseConfig, store: ReleaseStore
) -> None:
    await store.record_exposures([exposure("a")])
    pool = Database(database)

    def fail(connection: object) -> None:
        connection.execute(text("DELETE FROM exposure"))  # type: ignore[attr-defined]  # it is one
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        await pool.write(fail)
    await pool.close()
    assert (await store.aggregates("digits", NOW))["1"].exposures == 1


async def test_a_caller_that_gives_up_leaves_the_pool_whole(
    store: ReleaseStore, file: Path
) -> None:
    await store.append(draft(), 0)
    with write_lock(file):
        for _ in range(8):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await store.append(draft(), 1)
    written = await store.append(draft(), None)
    assert written.revision.number >= 2


@pytest.fixture
def damaged(file: Path) -> Path:
    file.write_bytes(b"not a database at all " * 400)
    return file


async def test_a_damaged_file(store: ReleaseStore, damaged: Path) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        await store.current("digits")
    assert "restore a backup" in caught.value.reason
    # It starts by itself when the file is in order.
    os.rename(damaged, f"{damaged}.kept")
    assert await store.current("digits") is None


async def test_a_read_only_database(store: ReleaseStore, file: Path) -> None:
    await store.append(draft(), 0)
    await store.close()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    read_only = ReleaseStore(DatabaseConfig(url=f"sqlite:///file:{file}?mode=ro&uri=true"))
    with pytest.raises(StoreUnavailable) as caught:
        await read_only.append(draft(), 1)
    assert "not writable" in caught.value.reason
    await read_only.close()


async def test_a_full_disk(store: ReleaseStore, database: DatabaseConfig) -> None:
    await store.append(draft(), 0)
    await store.close()
    small = ReleaseStore(database.model_copy(update={"pool_size": 1}))
    pages = await small._database.read(
        lambda connection: connection.execute(text("PRAGMA page_count")).scalar_one()
    )
    await small._database.read(
        lambda connection: connection.execute(text(f"PRAGMA max_page_count = {pages}")).scalar()
    )
    with pytest.raises(StoreUnavailable) as caught:
        await small.record_exposures([exposure(f"r{n}") for n in range(2000)])
    assert "database or disk is full" in caught.value.reason
    assert await small.aggregates("digits", 0) == {}
    await small.close()


async def test_a_backup_that_takes_the_place_of_the_file(store: ReleaseStore, file: Path) -> None:
    await store.append(draft(), 0)
    backup = file.with_name("backup.db")
    with closing(sqlite3.connect(file)) as live, closing(sqlite3.connect(backup)) as copy:
        live.backup(copy)
    await store.append(draft(), 1)
    assert (await store.get("digits", 2)).number == 2
    for left in (file, file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")):
        left.unlink(missing_ok=True)
    shutil.move(backup, file)
    assert [each.number for each in await store.history("digits")] == [1]
    assert (await store.append(draft(), 1)).revision.number == 2
    with closing(sqlite3.connect(file)) as reader:
        assert reader.execute("SELECT count(*) FROM revision").fetchone() == (2,)


async def test_the_folder_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("")
    store = ReleaseStore(DatabaseConfig(url=f"sqlite:///{tmp_path}/var/serve-app.db"))
    with pytest.raises(StoreUnavailable):
        await store.current("digits")
    await store.close()


def test_a_password_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVE_DB_PASSWORD", raising=False)
    settings = {"url": "postgresql://serve@127.0.0.1:1/serve", "password_env": "SERVE_DB_PASSWORD"}
    with pytest.raises(ConfigError, match="SERVE_DB_PASSWORD is not set"):
        ReleaseStore(DatabaseConfig.model_validate(settings))


async def test_no_postgresql_there() -> None:
    store = ReleaseStore(DatabaseConfig(url="postgresql://serve@127.0.0.1:1/serve"))
    with pytest.raises(StoreUnavailable) as caught:
        await store.current("digits")
    assert "is PostgreSQL running there?" in caught.value.reason
    await store.close()
