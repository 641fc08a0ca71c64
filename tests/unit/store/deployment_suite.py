"""What the deployment log must do on every database; run on SQLite and on PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from serve_app.config.cluster import ClusterConfig, DatabaseConfig, LogConfig
from serve_app.config.ingress import IngressConfig
from serve_app.config.listener import GrpcConfig, HttpConfig, MetricsConfig
from serve_app.config.model import ModelConfig
from serve_app.config.root import Config
from serve_app.errors import ClusterError
from serve_app.store.deployments import DeploymentLog, digest
from serve_app.store.engine import connect, make_folder, transaction
from serve_app.store.schema import migrate, upgrade
from serve_app.store.tables import Table

DOCUMENT: dict[str, Any] = {
    "applications": [{"name": "grün", "args": {"a": 1.5, "b": [None, -0.0]}}]
}


def config(database: DatabaseConfig) -> Config:
    tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
    model = ModelConfig.model_validate(
        {
            "inputs": [tensor],
            "outputs": [tensor],
            "versions": {
                "1": {"platform": "test", "predictor": {"_target_": "some.Predictor", "n": 3}}
            },
            "release": {"candidates": [{"version": "1", "weight": 100}]},
        }
    )
    return Config(
        env="test",
        http=HttpConfig(),
        grpc=GrpcConfig(),
        metrics=MetricsConfig(),
        ingress=IngressConfig(),
        cluster=ClusterConfig.model_validate({}),
        database=database,
        log=LogConfig(),
        models={"m": model},
    )


class DeploymentSuite:
    """Each test gets an empty database from the fixture `database` of the subclass."""

    def test_a_new_database_has_no_deployments(self, database: DatabaseConfig) -> None:
        log = DeploymentLog(database)
        assert log.latest_applied() is None
        assert log.history() == []

    def test_a_deployment_is_recorded_whole(self, database: DatabaseConfig) -> None:
        composed = config(database)
        log = DeploymentLog(database)
        revision = log.record("ada", composed, DOCUMENT)
        (pending,) = log.history()
        assert (pending.revision, pending.outcome, pending.reason) == (revision, "applying", "")
        assert log.latest_applied() is None
        log.finish(revision, "applied", "")

        again = DeploymentLog(database).latest_applied()
        assert again is not None
        assert (again.revision, again.actor, again.outcome) == (revision, "ada", "applied")
        assert again.document == DOCUMENT
        assert again.sha256 == digest(DOCUMENT)
        assert again.created_at.utcoffset() == timedelta(0)
        assert abs(datetime.now(UTC) - again.created_at) < timedelta(minutes=5)
        assert Config.model_validate(again.config) == composed

    def test_revisions_grow_and_history_is_newest_first(self, database: DatabaseConfig) -> None:
        log = DeploymentLog(database)
        composed = config(database)
        revisions = [log.record("ada", composed, {"n": n}) for n in range(5)]
        assert revisions == sorted(set(revisions))
        assert [each.revision for each in log.history(3)] == revisions[:1:-1]
        assert [each.document["n"] for each in log.history()] == [4, 3, 2, 1, 0]

    def test_history_has_pages(self, database: DatabaseConfig) -> None:
        log = DeploymentLog(database)
        made = [log.record("ada", config(database), {"n": n}) for n in range(4)]
        assert [each.revision for each in log.history(2, before=made[3])] == [made[2], made[1]]
        assert log.history(2, before=made[0]) == []

    def test_what_is_said_is_kept_in_order(self, database: DatabaseConfig) -> None:
        log = DeploymentLog(database)
        one, other = (log.record("ada", config(database), DOCUMENT, "why") for _ in range(2))
        for revision, said in (one, "a"), (other, "b"), (one, "c\0\udcff"):
            log.note(revision, said)
        events = log.events(one)
        assert [event.text for event in events] == ["a", "c\\udcff"]
        assert [event.text for event in log.events(other)] == ["b"]
        assert all(event.at.utcoffset() == timedelta(0) for event in events)
        assert log.find(one).reason == "why"  # type: ignore[union-attr]  # it is there
        with pytest.raises(ClusterError, match=r"(?i)foreign key"):
            log.note(other + 1, "of nothing")

    def test_a_failed_deployment_does_not_become_the_latest(self, database: DatabaseConfig) -> None:
        log = DeploymentLog(database)
        good = log.record("ada", config(database), DOCUMENT)
        log.finish(good, "applied", "")
        bad = log.record("bob", config(database), DOCUMENT)
        log.finish(bad, "failed", "replica 1 of digits@2\nwas killed: 100%")
        latest = log.latest_applied()
        assert latest is not None
        assert latest.revision == good
        assert log.history(1)[0].reason == "replica 1 of digits@2\nwas killed: 100%"

    def test_the_id_of_a_deleted_deployment_is_not_given_out_again(
        self, database: DatabaseConfig
    ) -> None:
        log = DeploymentLog(database)
        first = log.record("ada", config(database), DOCUMENT)
        with transaction(connect(database)) as connection:
            connection.execute(text("DELETE FROM deployment"))
        assert log.record("ada", config(database), DOCUMENT) > first

    @pytest.mark.parametrize("ended", ["applied", "failed", None])
    def test_only_what_is_applying_can_finish(self, database: DatabaseConfig, ended: Any) -> None:
        log = DeploymentLog(database)
        revision = 12345
        if ended is not None:
            revision = log.record("ada", config(database), DOCUMENT)
            log.finish(revision, ended, "first")
        with pytest.raises(ClusterError, match=f"revision {revision} is not applying"):
            log.finish(revision, "applied", "second")
        assert [each.reason for each in log.history()] == (["first"] if ended else [])

    def test_text_that_databases_refuse_is_kept_readable(self, database: DatabaseConfig) -> None:
        log = DeploymentLog(database)
        revision = log.record("a" * 1000, config(database), DOCUMENT)
        log.finish(revision, "failed", "no\0 such file: \udcff.bin")
        (row,) = log.history()
        assert row.actor == "a" * 255
        assert row.reason == "no such file: \\udcff.bin"

    def test_what_is_recorded_as_text_is_never_run_as_sql(self, database: DatabaseConfig) -> None:
        log = DeploymentLog(database)
        hostile = "'); DROP TABLE deployment; --"
        log.finish(log.record(hostile, config(database), {hostile: hostile}), "failed", hostile)
        (row,) = log.history()
        assert (row.actor, row.reason, row.document) == (hostile, hostile, {hostile: hostile})

    def test_an_unknown_outcome_is_refused_by_the_database(self, database: DatabaseConfig) -> None:
        log = DeploymentLog(database)
        revision = log.record("ada", config(database), DOCUMENT)
        with pytest.raises(ClusterError, match=r"(?i)check constraint"):
            log.finish(revision, "fine", "")  # type: ignore[arg-type]  # on purpose

    def test_autogenerate_finds_nothing_to_do(self, database: DatabaseConfig) -> None:
        upgrade(database)
        with transaction(connect(database)) as connection:
            options = {"compare_type": True, "compare_server_default": True}
            context = MigrationContext.configure(connection, opts=options)
            assert compare_metadata(context, Table.metadata) == []
            indexes = {each["name"] for each in inspect(connection).get_indexes("deployment")}
            assert indexes == {"ix_deployment_outcome_id"}

    def test_upgrading_again_changes_nothing(self, database: DatabaseConfig) -> None:
        log = DeploymentLog(database)
        revision = log.record("ada", config(database), DOCUMENT)
        upgrade(database)
        assert [each.revision for each in log.history()] == [revision]

    def test_downgrade_and_upgrade_of_a_populated_database(self, database: DatabaseConfig) -> None:
        log = DeploymentLog(database)
        log.record("ada", config(database), DOCUMENT)
        engine = connect(database)
        migrate(engine, "base", down=True)
        with transaction(engine) as connection:
            assert set(inspect(connection).get_table_names()) == {"alembic_version"}
        upgrade(database)
        assert log.history() == []

    def test_several_processes_may_upgrade_and_record_at_once(
        self, database: DatabaseConfig
    ) -> None:
        def record(number: int) -> int:
            return DeploymentLog(database).record(f"actor {number}", config(database), DOCUMENT)

        with ThreadPoolExecutor(8) as pool:
            revisions = list(pool.map(record, range(24)))
        assert len(set(revisions)) == 24

    def test_a_failed_migration_leaves_nothing_behind(self, database: DatabaseConfig) -> None:
        engine = connect(database)
        make_folder(engine)
        with transaction(engine) as connection:
            # In the way of the migration's last step.
            connection.execute(text("CREATE TABLE other (outcome INT, id INT)"))
            connection.execute(text("CREATE INDEX ix_deployment_outcome_id ON other (id)"))
        with pytest.raises(ClusterError, match="already exists"):
            upgrade(database)
        with transaction(engine) as connection:
            assert set(inspect(connection).get_table_names()) == {"other"}

    def test_a_database_of_a_newer_release_is_left_alone(self, database: DatabaseConfig) -> None:
        upgrade(database)
        with transaction(connect(database)) as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(ClusterError, match="newer release of serve-app"):
            DeploymentLog(database)
