from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from itertools import count

import pytest
from sqlalchemy import text

from serve_app.config.cluster import DatabaseConfig
from serve_app.errors import ClusterError, StoreUnavailable
from serve_app.store import engine as engine_module
from serve_app.store.deployments import DeploymentLog
from serve_app.store.engine import connect, transaction
from serve_app.store.outcomes import ArmTotals
from serve_app.store.releases import ReleaseStore
from tests.integration.postgres import PASSWORD, USER, admin, postgres, postgres_server
from tests.unit.store.deployment_suite import DOCUMENT, DeploymentSuite, config
from tests.unit.store.lease_suite import LeaseSuite
from tests.unit.store.plans import everyday, fill, recorded, scans
from tests.unit.store.release_suite import NOW, ReleaseSuite, draft, exposure, label

_VARIABLE = "SERVE_APP_TEST_DATABASE_PASSWORD"
_numbers = count()


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with postgres() as port:
        yield port


@pytest.fixture
def database(server: int, monkeypatch: pytest.MonkeyPatch) -> DatabaseConfig:
    """A new, empty database."""
    monkeypatch.setenv(_VARIABLE, PASSWORD)
    name = f"serve_{next(_numbers)}"
    admin(server, f"CREATE DATABASE {name}")
    return _config(server, name)


def _config(port: int, name: str) -> DatabaseConfig:
    url = f"postgresql://{USER}@127.0.0.1:{port}/{name}"
    return DatabaseConfig.model_validate({"url": url, "password_env": _VARIABLE})


class TestDeploymentsOnPostgres(DeploymentSuite):
    pass


class TestLeaseOnPostgres(LeaseSuite):
    pass


class TestReleasesOnPostgres(ReleaseSuite):
    pass


def test_a_wrong_password_is_not_repeated(
    server: int, database: DatabaseConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, _VARIABLE, "wrong-and-secret")
    with pytest.raises(ClusterError, match="password authentication failed") as caught:
        DeploymentLog(database)
    assert "wrong-and-secret" not in str(caught.value)


def test_a_database_that_does_not_exist(server: int, database: DatabaseConfig) -> None:
    with pytest.raises(ClusterError, match='database "nowhere" does not exist'):
        DeploymentLog(_config(server, "nowhere"))


def test_a_user_without_rights(server: int, database: DatabaseConfig) -> None:
    DeploymentLog(database)
    admin(server, f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
    reader = DatabaseConfig.model_validate(
        {"url": database.url.replace(f"{USER}@", "reader@"), "password_env": _VARIABLE}
    )
    with pytest.raises(ClusterError, match="permission denied"):
        DeploymentLog(reader).history()


def test_a_locked_table(database: DatabaseConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    log = DeploymentLog(database)
    monkeypatch.setattr(engine_module, "LOCK_TIMEOUT_MS", 50)
    with transaction(connect(database)) as connection:
        connection.execute(text("LOCK TABLE deployment IN ACCESS EXCLUSIVE MODE"))
        errors: list[ClusterError] = []

        def record() -> None:
            try:
                log.record("ada", config(database), DOCUMENT)
            except ClusterError as error:
                errors.append(error)

        thread = threading.Thread(target=record)
        thread.start()
        thread.join(20)
    assert "canceling statement due to lock timeout" in str(errors[0])
    assert log.history() == []


def test_timeouts_hold_for_one_transaction_only(database: DatabaseConfig) -> None:
    engine = connect(database)
    with transaction(engine) as connection:
        assert connection.execute(text("SHOW statement_timeout")).scalar() == "30s"
        assert connection.execute(text("SHOW lock_timeout")).scalar() == "5s"
    with engine.connect() as connection:
        with connection.begin():
            pass
        cursor = connection.connection.cursor()
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("0",)


async def test_no_everyday_statement_reads_a_whole_table(database: DatabaseConfig) -> None:
    store = ReleaseStore(database)
    await fill(store, database)
    with recorded() as statements:
        await everyday(store)
    await store.close()
    with transaction(connect(database)) as connection:
        assert scans(connection, statements) == []
        for column in ("prediction", "at"):
            statement = f"SELECT 1 FROM exposure WHERE {column} IS NULL"
            assert scans(connection, [(statement, {})])


async def test_reads_write_nothing(database: DatabaseConfig) -> None:
    store = ReleaseStore(database)
    await store.append(draft(), 0)
    with pytest.raises(StoreUnavailable) as caught:
        await store._database.read(lambda each: each.execute(text("DELETE FROM exposure")))
    assert "read-only transaction" in caught.value.reason
    await store.close()


async def test_a_locked_model(database: DatabaseConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ReleaseStore(database)
    await store.append(draft(), 0)
    monkeypatch.setattr(engine_module, "LOCK_TIMEOUT_MS", 50)
    with transaction(connect(database)) as connection:
        engine_module.lock_model(connection, "digits")
        with pytest.raises(StoreUnavailable) as caught:
            await store.append(draft(), 1)
        assert "lock timeout" in caught.value.reason
        assert (await store.append(draft("other"), 0)).revision.number == 1
        assert await store.current("digits") is not None
    assert (await store.append(draft(), 1)).revision.number == 2
    await store.close()


async def test_callers_that_give_up_leave_the_pool_whole(database: DatabaseConfig) -> None:
    store = ReleaseStore(database)
    await store.append(draft(), 0)
    with transaction(connect(database)) as connection:
        engine_module.lock_model(connection, "digits")
        for _ in range(8):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await store.append(draft(), 1)
    assert (await store.append(draft(), 1)).revision.number == 2
    await store.close()


async def test_a_server_that_goes_away_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_VARIABLE, PASSWORD)
    with postgres_server() as server:
        store = ReleaseStore(_config(server.port, "postgres"))
        begun = await store.append(draft(), 0)
        await store.record_exposures([exposure("a")])
        # Several connections are open in the pool when it goes.
        await asyncio.gather(*[store.current("digits") for _ in range(8)])
        server.stop()
        for _ in range(3):
            with pytest.raises(StoreUnavailable) as caught:
                await store.append(draft(), 1)
        assert "is PostgreSQL running there?" in caught.value.reason
        server.start()
        found = await asyncio.gather(*[store.current("digits") for _ in range(8)])
        assert found == [begun.revision] * 8
        await store.record_outcomes("digits", [label("a")], 60, NOW)
        assert await store.aggregates("digits", NOW) == {"1": ArmTotals(1, 1, 1.0, 0.0)}
        assert (await store.append(draft(), 1)).revision.number == 2
        await store.close()


async def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_VARIABLE, PASSWORD)
    with postgres_server() as server:
        settings = _config(server.port, "postgres").model_copy(update={"timeout_s": 1.0})
        store = ReleaseStore(settings)
        await store.append(draft(), 0)
        await asyncio.gather(*[store.current("digits") for _ in range(8)])
        with server.frozen():
            began = time.monotonic()
            results = await asyncio.gather(
                *[store.current("digits") for _ in range(12)], return_exceptions=True
            )
            assert [type(each) for each in results] == [StoreUnavailable] * 12
            # No waiting without an end: a second for the answer, one to clean up.
            assert time.monotonic() - began < 10
        deadline = time.monotonic() + 60
        while True:
            try:
                assert (await store.append(draft(), 1)).revision.number == 2
                break
            except StoreUnavailable:
                assert time.monotonic() < deadline
        await store.close()
