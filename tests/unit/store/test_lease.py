from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.config.cluster import DatabaseConfig
from tests.unit.store.lease_suite import LeaseSuite


class TestLeaseOnSqlite(LeaseSuite):
    @pytest.fixture
    def database(self, tmp_path: Path) -> DatabaseConfig:
        return DatabaseConfig(url=f"sqlite:///{tmp_path}/not there yet/log.db")
