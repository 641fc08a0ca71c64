from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deployments.records import Records
from serve_app.config.cluster import DatabaseConfig
from serve_app.errors import RevisionNotFound, StoreUnavailable
from serve_app.store.deployments import DeploymentLog
from tests.unit.store.deployment_suite import config

DOCUMENT: dict[str, Any] = {"applications": []}


@pytest.fixture
def database(tmp_path: Path) -> DatabaseConfig:
    return DatabaseConfig(url=f"sqlite:///{tmp_path}/state.db")


async def test_what_the_log_says(database: DatabaseConfig) -> None:
    log = DeploymentLog(database)
    for _ in range(3):
        log.finish(log.record("ada", config(database), DOCUMENT), "applied", "because")
    log.note(2, "half way")
    records = Records(database)
    assert [each.revision for each in await records.deployments(2, None)] == [3, 2]
    assert [each.revision for each in await records.deployments(2, 2)] == [1]
    found = await records.deployment(2)
    assert (found.actor, found.outcome, found.reason) == ("ada", "applied", "because")
    assert [each.text for each in found.progress] == ["half way"]
    assert found.config["models"].keys() == {"m"}
    assert (await records.deployment(1)).changes.startswith("first")
    for unknown in (4, 12345):
        with pytest.raises(RevisionNotFound, match=f"the deployment has no revision {unknown}"):
            await records.deployment(unknown)


async def test_a_database_that_is_away_may_come_back(tmp_path: Path) -> None:
    file = tmp_path / "folder"
    file.write_text("no folder yet")
    database = DatabaseConfig(url=f"sqlite:///{file}/state.db")
    records = Records(database)
    with pytest.raises(StoreUnavailable):
        await records.deployments(20, None)
    file.unlink()
    assert await records.deployments(20, None) == []
