"""One way to apply, and everything that can happen on it, against a stand-in for Ray's API."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments import apply as apply_module
from deployments import revisions
from deployments.apply import alone, apply
from deployments.change import settings_of
from deployments.history import history
from deployments.manifest import render
from deployments.node import LocalNode
from deployments.readiness import wait_until_ready
from deployments.survey import survey
from deployments.target import Target, build_id
from serve_app.config.load import load_config
from serve_app.config.root import Config
from serve_app.errors import ClusterError, ConfigError, DeploymentConflict, PlanRefused
from serve_app.store import engine
from serve_app.store.deployments import Deployment, DeploymentLog
from tests.unit.deployments.ray_stub import RayStub, ray_stub

CONFIGS = Path(__file__).parents[2] / "integration" / "configs"
SCALED = "models.echo.versions.1.replicas={min: 3, max: 3}"
SLOW = "models.echo.versions.2.predictor.delay_s=0.5"


@pytest.fixture
def ray() -> Iterator[RayStub]:
    with ray_stub() as stub:
        yield stub


class Bench:
    """A home, a stub of a cluster, and the commands on them."""

    def __init__(self, home: Path, ray: RayStub) -> None:
        self.home, self.ray = home, ray

    def config(self, *overrides: str, home: Path | None = None) -> Config:
        database = f"database.url=sqlite:///{home or self.home}/log.db"
        joined = ["cluster=existing", f"cluster.address={self.ray.url}", "cluster.settle_s=0.3"]
        timing = ["cluster.ready_timeout_s=5", f"http.port={self.ray.port}"]
        selected = ["env=test", "model=[echo]", database, *joined, *timing]
        return load_config([*selected, *overrides], CONFIGS)

    def apply(self, *overrides: str, actor: str = "ada", home: Path | None = None) -> int | None:
        config = self.config(*overrides, home=home)
        with alone(config, self.home) as log:
            return apply(config, self.home, Target(self.ray.url, "t", None), log, actor)

    def document(self, *overrides: str) -> dict[str, Any]:
        return render(self.config(*overrides), home=str(self.home), build=build_id())

    def running(self) -> list[Any]:
        return [] if self.ray.document is None else self.ray.document["applications"]

    def rows(self) -> list[Deployment]:
        return DeploymentLog(self.config().database).history()


@pytest.fixture
def bench(tmp_path: Path, ray: RayStub, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t")
    monkeypatch.setenv("SERVE_APP_CLUSTER_ADDRESS", ray.url)
    return Bench(tmp_path, ray)


def test_the_second_time_is_no_deployment(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.apply() == 1
    assert bench.apply() is None
    assert "No changes" in capsys.readouterr().out
    assert len(bench.ray.puts) == 1
    assert [row.outcome for row in bench.rows()] == ["applied"]


@pytest.mark.parametrize(
    "message",
    [
        "serve_app.errors.ArtifactError: digest of model.bin is aaa, declared is bbb",
        "serve_app.errors.PredictorError: warm-up: no output 'y'",
        "RuntimeError: the constructor raised",
    ],
)
def test_a_version_that_cannot_start_is_named_and_undone(
    bench: Bench, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.apply()
    former = bench.running()
    bench.ray.failing = {"echo@2": message}
    bench.ray.on_put = lambda: bench.ray.failing.clear() if len(bench.ray.puts) > 2 else None
    with pytest.raises(ClusterError, match=message.split(": ", 1)[1].split("'")[0]) as caught:
        bench.apply(SLOW)
    assert "echo 2" in str(caught.value)
    assert bench.running() == former
    assert "The former deployment serves." in capsys.readouterr().out
    assert [row.outcome for row in bench.rows()] == ["failed", "applied"]
    assert bench.rows()[0].reason == str(caught.value)


def test_a_version_that_falls_ill_after_it_was_ready_is_undone(bench: Bench) -> None:
    bench.apply()
    former = bench.running()
    gets = 0

    def fall_ill() -> None:
        nonlocal gets
        gets += 1
        slow = bench.ray.document != bench.ray.puts[0] and len(bench.ray.puts) == 2
        bench.ray.sick = {"echo@2": "RuntimeError: the thread has ended"} if slow else {}
        if slow and gets < 6:
            bench.ray.sick = {}

    bench.ray.on_get = fall_ill
    with pytest.raises(ClusterError, match="echo 2: became unhealthy after it was ready"):
        bench.apply(SLOW, "cluster.settle_s=3")
    assert bench.running() == former


NEW = [
    "+models.echo.versions.3={platform: test, predictor: "
    "{_target_: serve_app.predictors.echo.EchoModel}}",
    "models.echo.release.candidates=[{version: '3', weight: 100}]",
]


def serving(document: dict[str, Any]) -> str:
    candidates = settings_of(document)["echo"]["release"]["candidates"]
    (version,) = [str(each["version"]) for each in candidates if each["weight"]]
    return version


def test_traffic_moves_after_what_is_new_has_stayed_healthy(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.apply()
    bench.apply(*NEW)
    assert [serving(each) for each in bench.ray.puts] == ["1", "1", "3"]
    assert bench.ray.puts[2] == bench.document(*NEW)
    assert capsys.readouterr().out.count("Watching that what is new stays healthy") == 1


def test_no_traffic_moves_to_a_version_that_falls_ill(bench: Bench) -> None:
    bench.apply()
    former = bench.running()

    def fall_ill() -> None:
        if len(bench.ray.puts) == 2:
            bench.ray.sick = {"echo@3": "RuntimeError: the thread has ended"}

    with pytest.MonkeyPatch.context() as patch:

        def then_fall_ill(*arguments: Any) -> None:
            wait_until_ready(*arguments)
            fall_ill()

        patch.setattr(apply_module, "wait_until_ready", then_fall_ill)
        with pytest.raises(ClusterError, match="echo 3: became unhealthy"):
            bench.apply(*NEW)
    assert [serving(each) for each in bench.ray.puts] == ["1", "1", "1"]
    assert bench.running() == former


def test_what_is_not_touched_does_not_hold_up_an_apply(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.apply()
    bench.ray.sick = {"echo@2": "RuntimeError: broken"}
    assert bench.apply(SCALED)
    assert "not waited for: echo 2" in capsys.readouterr().out


def test_the_same_config_on_a_sick_cluster_is_no_success(bench: Bench) -> None:
    bench.apply()
    bench.ray.failing = {"echo@2": "RuntimeError: broken"}
    with pytest.raises(ClusterError, match="echo 2: RuntimeError: broken"):
        bench.apply()
    assert len(bench.ray.puts) == 1


def test_a_plan_that_is_refused_touches_nothing(bench: Bench) -> None:
    bench.apply()
    with pytest.raises(PlanRefused, match="100 % of the traffic still goes to it"):
        bench.apply(
            "~models.echo.versions.1",
            "models.echo.release.candidates=[{version: '2', weight: 100}]",
        )
    assert len(bench.ray.puts) == len(bench.rows()) == 1


def test_an_interrupt_is_undone_and_recorded(bench: Bench) -> None:
    bench.apply()
    former = bench.running()

    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apply_module, "wait_until_ready", interrupt)
        with pytest.raises(KeyboardInterrupt):
            bench.apply(SCALED)
    assert bench.running() == former
    assert (bench.rows()[0].outcome, bench.rows()[0].reason) == ("failed", "KeyboardInterrupt")


def test_a_cluster_that_changed_since_the_plan_is_left_alone(bench: Bench) -> None:
    bench.apply()
    other = bench.document("http.idle_timeout_s=9")

    def change() -> None:
        if len(bench.rows()) == 2:  # after the plan, before the document is sent
            bench.ray.document = other

    bench.ray.on_get = change
    with pytest.raises(DeploymentConflict, match="changed since this plan was made"):
        bench.apply(SCALED)
    assert bench.ray.document == other
    assert len(bench.ray.puts) == 1
    assert bench.rows()[0].outcome == "failed"


def test_whoever_is_replaced_meanwhile_puts_nothing_back(bench: Bench) -> None:
    bench.apply()
    other = bench.document("http.idle_timeout_s=9")

    def replace() -> None:
        bench.ray.document = other

    bench.ray.on_put = replace
    with pytest.raises(DeploymentConflict, match="another apply has replaced"):
        bench.apply(SCALED)
    assert bench.ray.document == other
    assert len(bench.ray.puts) == 2


def test_two_at_once_one_is_told_who_is_at_work(bench: Bench) -> None:
    bench.apply()
    config = bench.config(SCALED)
    with alone(config, bench.home) as log:
        log.record("grace", config, bench.document(SCALED))
        with pytest.raises(DeploymentConflict, match="grace has been applying revision 2"):
            bench.apply(SCALED)
    assert len(bench.ray.puts) == 1
    assert bench.apply(SCALED)


def test_the_record_of_a_command_that_was_killed_is_closed(bench: Bench) -> None:
    bench.apply()
    log = DeploymentLog(bench.config().database)
    log.record("grace", bench.config(SLOW), bench.document(SLOW))
    bench.apply(SCALED)
    outcomes = [(row.outcome, row.reason) for row in bench.rows()]
    assert outcomes == [
        ("applied", ""),
        ("failed", "its command ended without a result"),
        ("applied", ""),
    ]


@pytest.fixture
def locked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Locks the database when it is called."""
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_MS", 50)
    connections = []

    def lock() -> None:
        connection = sqlite3.connect(bench.home / "log.db", check_same_thread=False)
        connection.execute("BEGIN IMMEDIATE")
        connections.append(connection)

    yield lock
    for each in connections:
        each.close()


def test_a_locked_database_stops_an_apply_before_it_begins(
    bench: Bench, locked: Callable[[], None]
) -> None:
    bench.apply()
    locked()
    with pytest.raises(ClusterError, match="database is locked"):
        bench.apply(SCALED)
    assert len(bench.ray.puts) == 1


def test_a_database_that_goes_at_the_end_does_not_undo_what_serves(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.apply()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "BUSY_TIMEOUT_MS", 50)
        connection = sqlite3.connect(bench.home / "log.db", check_same_thread=False)
        bench.ray.on_put = lambda: (connection.execute("BEGIN IMMEDIATE"), None)[1]
        assert bench.apply(SCALED)
        connection.close()
    bench.ray.on_put = lambda: None
    assert "revision 2 is not recorded" in capsys.readouterr().err
    assert len(bench.running()) == len(bench.document(SCALED)["applications"])
    assert len(bench.ray.puts) == 2
    assert bench.rows()[0].outcome == "applying"
    assert not bench.apply(SCALED)
    assert (bench.rows()[0].outcome, bench.rows()[0].reason) == ("applied", "recorded later")


def test_other_applications_on_the_cluster_are_not_removed(bench: Bench) -> None:
    bench.ray.document = {"applications": [{"name": "theirs", "deployments": []}]}
    with pytest.raises(ClusterError, match="not ours: theirs"):
        bench.apply()
    assert not bench.ray.puts


def test_what_this_machine_knows_is_refused_as_well(bench: Bench) -> None:
    bench.apply()
    node = LocalNode(0, 0.0, bench.ray.url, "mark", {"gcs_port": 1})
    target = Target(bench.ray.url, "t", node)
    with socket.create_server(("127.0.0.1", 0)) as taken, target.api() as api:
        port = taken.getsockname()[1]
        found = survey(api, bench.config(f"metrics.port={port}"), bench.home, target).plan
    assert any(f"Port {port} is taken by pid {os.getpid()}" in each for each in found.refusals)
    # The other listeners are ours: they have not moved.
    assert sum("is taken by" in each for each in found.refusals) == 1
    assert any("cluster.gcs_port\n  Ray was started with 1" in each for each in found.refusals)


def test_on_a_cluster_that_may_grow_a_lack_of_cpus_is_no_refusal(bench: Bench) -> None:
    bench.ray.cpus = 0.1
    target = Target(bench.ray.url, "t", None)
    with target.api() as api:
        found = survey(api, bench.config(), bench.home, target).plan
    assert found.resources is not None
    assert "Does not fit" in found.resources.shortage
    assert not found.refusals


def test_rollback_puts_the_one_before_back_and_twice_returns(bench: Bench) -> None:
    bench.apply()
    bench.apply(SCALED)
    assert revisions.rollback(bench.config(), bench.home, "ada", None) == 1
    assert bench.ray.puts[2] == bench.ray.puts[0]
    assert bench.rows()[0].reason == "rollback to revision 1"
    assert bench.rows()[0].outcome == "applied"
    assert revisions.rollback(bench.config(), bench.home, "ada", None) == 2
    assert bench.ray.puts[3] == bench.ray.puts[1]


def test_rollback_to_a_number(bench: Bench) -> None:
    for overrides in ((), (SCALED,), (SLOW,)):
        bench.apply(*overrides)
    assert revisions.rollback(bench.config(), bench.home, "ada", 1) == 1
    assert bench.ray.puts[3] == bench.ray.puts[0]
    with pytest.raises(ConfigError, match="no revision 77"):
        revisions.rollback(bench.config(), bench.home, "ada", 77)


def test_rollback_to_what_never_served_is_refused(bench: Bench) -> None:
    bench.apply()
    bench.ray.failing = {"echo@2": "RuntimeError: no"}
    bench.ray.on_put = lambda: bench.ray.failing.clear() if len(bench.ray.puts) > 2 else None
    with pytest.raises(ClusterError):
        bench.apply(SLOW)
    with pytest.raises(PlanRefused, match="never served"):
        revisions.rollback(bench.config(), bench.home, "ada", 2)
    with pytest.raises(PlanRefused, match="no former deployment"):
        revisions.rollback(bench.config(), bench.home, "ada", None)


def test_history_says_what_each_one_changed(bench: Bench) -> None:
    bench.apply()
    bench.apply(SCALED)
    revisions.rollback(bench.config(), bench.home, "grace", None)
    log = DeploymentLog(bench.config().database)
    rows = history(log, 20)
    assert [(row["revision"], row["actor"], row["changes"]) for row in rows] == [
        (3, "grace", "echo 1 changed"),
        (2, "ada", "echo 1 changed"),
        (1, "ada", "first: echo"),
    ]
    assert history(log, 1)[0]["changes"] == "echo 1 changed"
    assert [row["revision"] for row in history(log, 20, before=3)] == [2, 1]


def test_one_database_is_enough_for_a_conflict(bench: Bench, tmp_path: Path) -> None:
    config = bench.config()
    with (
        alone(config, bench.home),
        pytest.raises(DeploymentConflict, match=r"another apply is at work on database"),
        alone(config, tmp_path / "other machine"),
    ):
        pass


def test_what_is_said_meanwhile_is_kept(bench: Bench) -> None:
    bench.apply()
    bench.ray.failing = {"echo@2": "RuntimeError: no"}
    bench.ray.on_put = lambda: bench.ray.failing.clear() if len(bench.ray.puts) > 2 else None
    with pytest.raises(ClusterError):
        bench.apply(SLOW)
    bench.ray.on_put = lambda: None
    bench.ray.sick = {"echo@2": "RuntimeError: broken"}
    bench.apply(SCALED)
    log = DeploymentLog(bench.config().database)
    assert [event.text for event in log.events(1)] == []
    assert [event.text.split(" ..")[0] for event in log.events(2)] == [
        "Putting the former deployment back",
        "The former deployment serves.",
    ]
    assert "Not ready before and not changed, so not waited for: echo 2" in [
        event.text for event in log.events(3)
    ]


def test_the_reason_is_recorded_from_the_beginning(bench: Bench) -> None:
    reasons = []
    bench.ray.on_put = lambda: reasons.append(bench.rows()[0].reason)
    config = bench.config()
    target = Target(bench.ray.url, "t", None)
    with alone(config, bench.home) as log:
        apply(config, bench.home, target, log, "ada", "more load")
    assert [*reasons, bench.rows()[0].reason] == ["more load", "more load"]
    log.record("grace", bench.config(SLOW), bench.document(SLOW), "a try")
    bench.apply()
    assert bench.rows()[0].reason == "a try: its command ended without a result"
