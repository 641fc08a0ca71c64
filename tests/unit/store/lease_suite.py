"""What the right to apply must do on every database; run on SQLite and on PostgreSQL."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from serve_app.config.cluster import DatabaseConfig
from serve_app.errors import DeploymentConflict
from serve_app.store.deployments import DeploymentLog
from serve_app.store.lease import applying
from tests.unit.store.deployment_suite import DOCUMENT, config

HOLD = """
import sys
from serve_app.config.cluster import DatabaseConfig
from serve_app.store.lease import applying
with applying(DatabaseConfig.model_validate_json(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


class LeaseSuite:
    """Each test gets an empty database from the fixture `database` of the subclass."""

    def test_one_process_at_a_time_and_none_that_has_died(self, database: DatabaseConfig) -> None:
        with subprocess.Popen(
            [sys.executable, "-c", HOLD, database.model_dump_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            conflict = pytest.raises(DeploymentConflict, match="another apply is at work on data")
            with conflict, applying(database):
                pass
            other.send_signal(signal.SIGKILL)
            other.wait()
        with applying(database):
            pass

    def test_the_holder_can_write_and_gives_the_right_back(self, database: DatabaseConfig) -> None:
        with applying(database):
            assert DeploymentLog(database).record("ada", config(database), DOCUMENT) == 1
        with applying(database), pytest.raises(DeploymentConflict), applying(database):
            pass
        with pytest.raises(RuntimeError), applying(database):
            raise RuntimeError
        with applying(database):
            pass
