from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from itertools import count

import pytest
from sqlalchemy import text

from serve_app.config.cluster import DatabaseConfig
from serve_app.errors import ClusterError
from serve_app.store import engine as engine_module
from serve_app.store.deployments import DeploymentLog
from serve_app.store.engine import connect, transaction
from tests.integration.postgres import PASSWORD, USER, admin, postgres
from tests.unit.store.deployment_suite import DOCUMENT, DeploymentSuite, config
from tests.unit.store.lease_suite import LeaseSuite

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
