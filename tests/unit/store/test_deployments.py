from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.config.cluster import DatabaseConfig
from serve_app.store.deployments import digest
from tests.unit.store.deployment_suite import DeploymentSuite


class TestDeploymentsOnSqlite(DeploymentSuite):
    @pytest.fixture
    def database(self, tmp_path: Path) -> DatabaseConfig:
        return DatabaseConfig(url=f"sqlite:///{tmp_path}/not/there yet/serve-app.db")


def test_equal_documents_have_equal_digests() -> None:
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
