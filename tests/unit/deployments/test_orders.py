"""Orders of the admin API, carried out against a stand-in for Ray's API."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments import cli
from deployments.answer import public
from deployments.apply import alone
from deployments.orders import Site, apply, plan, rollback
from deployments.target import Target
from serve_app.config.load import load_config, to_json
from serve_app.domain.control import Author
from serve_app.domain.deployer import Accepted, Wanted
from serve_app.errors import (
    ArtifactError,
    ClusterError,
    ConfigError,
    Conflict,
    DeploymentConflict,
    InvalidInput,
    NotReady,
    PlanRefused,
    ServeAppError,
)
from serve_app.http.admin import schema
from serve_app.store.deployments import Deployment, DeploymentLog
from tests.unit.deployments.ray_stub import RayStub, ray_stub

CONFIGS = Path(__file__).parents[2] / "integration" / "configs"
SCALED = "models.echo.versions.1.replicas={min: 3, max: 3}"
GONE = [
    "~models.echo.versions.1",
    "models.echo.release.candidates=[{version: '2', weight: 100}]",
]
ADA = Author(actor="ada", reason="more load")


@pytest.fixture
def ray() -> Iterator[RayStub]:
    with ray_stub() as stub:
        yield stub


class Bench:
    """The head node of a cluster, and what was told of each order."""

    def __init__(self, home: Path, ray: RayStub) -> None:
        self.home, self.ray = home, ray
        self.told: list[Accepted] = []
        database = load_config(self.overrides()).database
        self.site = Site(home, Target(ray.url, "t", None), database)
        self.log = DeploymentLog(database)

    def overrides(self, *more: str) -> list[str]:
        """The same as for the command line, which joins the cluster by its address."""
        joined = ["cluster=existing", f"http.port={self.ray.port}", "cluster.settle_s=0"]
        return ["env=test", "model=[echo]", *joined, "cluster.ready_timeout_s=5", *more]

    def wanted(self, *more: str) -> Wanted:
        return Wanted(overrides=tuple(self.overrides(*more)))

    def apply(self, *more: str, author: Author = ADA) -> Accepted:
        apply(self.site, self.told.append, self.wanted(*more), author)
        return self.told[-1]

    def rollback(self, revision: int | None = None, reason: str = "") -> Accepted:
        author = Author(actor="grace", reason=reason)
        rollback(self.site, self.told.append, revision, author)
        return self.told[-1]

    def rows(self) -> list[Deployment]:
        return self.log.history()


@pytest.fixture
def bench(tmp_path: Path, ray: RayStub, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("SERVE_APP_HOME", str(tmp_path))
    monkeypatch.setenv("SERVE_APP_CONFIG_DIR", str(CONFIGS))
    monkeypatch.setenv("SERVE_APP_CLUSTER_ADDRESS", ray.url)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t")
    return Bench(tmp_path, ray)


@pytest.mark.parametrize("more", [(), (SCALED,), ("http.port=1234",), tuple(GONE)])
def test_the_plan_is_that_of_the_command_line(
    bench: Bench, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    bench.apply()
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        command = ["serve-app", "plan", "--json", *bench.overrides(*more)]
        patch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit):
            cli.main()
    printed = json.loads(capsys.readouterr().out)
    plan(bench.site, bench.told.append, bench.wanted(*more))
    told = bench.told[-1]
    assert told.revision is None
    assert json.loads(json.dumps(told.plan)) == printed
    assert schema.Plan.model_validate(printed).model_dump(mode="json") == printed
    assert len(bench.ray.puts) == 1


def test_a_whole_config_is_like_the_overrides_that_make_it(bench: Bench) -> None:
    bench.apply()
    whole = to_json(load_config(bench.overrides(SCALED)))
    for wanted in (bench.wanted(SCALED), Wanted(config=json.loads(json.dumps(whole)))):
        plan(bench.site, bench.told.append, wanted)
    assert bench.told[-1] == bench.told[-2]
    assert bench.told[-1].plan["changes"]


def test_the_order_is_told_what_it_comes_to_before_it_is_carried_out(bench: Bench) -> None:
    def tell(accepted: Accepted) -> None:
        (row,) = bench.rows()
        seen.append((accepted.revision, row.outcome, row.actor, row.reason, len(bench.ray.puts)))

    seen: list[Any] = []
    apply(bench.site, tell, bench.wanted(), ADA)
    assert seen == [(1, "applying", "ada", "more load", 0)]
    (row,) = bench.rows()
    assert (row.outcome, row.reason, len(bench.ray.puts)) == ("applied", "more load", 1)


def test_nothing_to_do(bench: Bench) -> None:
    bench.apply()
    bench.ray.sick = {"echo@2": "RuntimeError: broken"}
    again = bench.apply()
    assert again.revision is None
    assert not again.plan["changes"]
    assert len(bench.ray.puts) == len(bench.rows()) == 1


def test_a_plan_that_is_refused_touches_nothing(bench: Bench) -> None:
    bench.apply()
    with pytest.raises(PlanRefused, match="100 % of the traffic still goes to it"):
        bench.apply(*GONE)
    assert len(bench.told) == len(bench.ray.puts) == len(bench.rows()) == 1


@pytest.mark.parametrize("lock", ["home", "database"])
def test_somebody_else_is_at_work(bench: Bench, lock: str, tmp_path: Path) -> None:
    bench.apply()
    config = load_config(bench.overrides(SCALED))
    home = bench.home if lock == "home" else tmp_path / "elsewhere"
    with alone(config, home) as log:
        log.record("grace", config, {"applications": []})
        with pytest.raises(DeploymentConflict, match=r"grace has been applying revision 2 since"):
            bench.apply(SCALED)
    assert len(bench.ray.puts) == 1


def test_what_fails_later_is_undone_and_recorded(bench: Bench) -> None:
    bench.apply()
    bench.ray.failing = {"echo@1": "RuntimeError: no"}
    bench.ray.on_put = lambda: bench.ray.failing.clear() if len(bench.ray.puts) > 2 else None
    with pytest.raises(ClusterError, match="echo 1: "):
        bench.apply(SCALED)
    assert bench.told[-1].revision == 2
    assert bench.ray.puts[2]["applications"] == bench.ray.puts[0]["applications"]
    assert (bench.rows()[0].outcome, bench.rows()[0].actor) == ("failed", "ada")
    assert bench.rows()[0].reason.startswith("more load: echo 1: ")


def test_back_and_to_a_number(bench: Bench) -> None:
    bench.apply()
    bench.apply(SCALED)
    assert bench.rollback(reason="too slow").revision == 3
    assert bench.ray.puts[2] == bench.ray.puts[0]
    assert bench.rows()[0].reason == "rollback to revision 1: too slow"
    assert bench.rows()[0].actor == "grace"
    assert bench.rollback(2).revision == 4
    assert bench.ray.puts[3] == bench.ray.puts[1]
    assert bench.rollback(2).revision is None


def test_a_rollback_goes_on_waiting_as_the_last_deployment_said(bench: Bench) -> None:
    bench.apply("cluster.ready_timeout_s=77")
    bench.apply(SCALED, "cluster.ready_timeout_s=5", "cluster.settle_s=0.5")
    bench.rollback()
    cluster = bench.rows()[0].config["cluster"]
    assert (cluster["ready_timeout_s"], cluster["settle_s"]) == (5, 0.5)


def test_there_is_nothing_to_go_back_to(bench: Bench) -> None:
    with pytest.raises(PlanRefused, match="has served"):
        bench.rollback()
    bench.apply()
    with pytest.raises(PlanRefused, match="no former deployment"):
        bench.rollback()
    with pytest.raises(ConfigError, match="no revision 7"):
        bench.rollback(7)


@pytest.mark.parametrize(
    ("wanted", "text", "field"),
    [
        (Wanted(overrides=("no.such=1",)), "command line: no\n  unknown key.", "no"),
        (Wanted(overrides=("http.port=0",)), "must be at least 1", "http.port"),
        (Wanted(overrides=("model=[nothing]",)), 'there is no "nothing"', "model"),
        (Wanted(config={}), "config: env\n  must be given", "env"),
    ],
)
def test_a_wrong_config_is_described_with_its_place(
    bench: Bench, wanted: Wanted, text: str, field: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(bench.site, bench.told.append, wanted)
    told = public(caught.value)
    assert isinstance(told, InvalidInput)
    assert text in str(told)
    assert told.field == field


def test_the_key_of_a_whole_config_that_is_wrong_is_named(bench: Bench) -> None:
    whole = to_json(load_config(bench.overrides()))
    whole["models"]["echo"]["versions"]["1"]["replicas"]["min"] = -1
    with pytest.raises(ConfigError, match=r"config: models\.echo") as caught:
        plan(bench.site, bench.told.append, Wanted(config=whole))
    assert caught.value.field == "models.echo.versions.1.replicas.min"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConfigError("a", "b"), InvalidInput("a", "b")),
        (DeploymentConflict("a"), Conflict("a")),
        (PlanRefused("a"), Conflict("a")),
        (ClusterError("a"), NotReady("a")),
        (ArtifactError("a"), NotReady("a")),
        (RuntimeError("secret"), ServeAppError()),
    ],
)
def test_what_whoever_gave_the_order_may_know(error: Exception, expected: ServeAppError) -> None:
    told = public(error)
    assert (type(told), told.args) == (type(expected), expected.args)
