"""Exit codes and output of the commands, as a shell sees them, without a cluster."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.cli import main
from serve_app.config.load import read_config, to_json
from serve_app.domain.control import Rollout
from serve_app.domain.release import Release
from tests.unit.deployments.ray_stub import RayStub, ray_stub

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "tests" / "integration" / "configs"
SCALED = "models.echo.versions.1.replicas={min: 3, max: 3}"
WEIGHTS = "models.echo.release.candidates=[{version: '1', weight: %s}]"


@pytest.fixture
def ray() -> Iterator[RayStub]:
    with ray_stub() as stub:
        yield stub


class Shell:
    """Runs commands in this process, as the entry point does."""

    def __init__(
        self, home: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._patch, self._capsys = patch, capsys
        self.ray: RayStub | None = None
        patch.setenv("SERVE_APP_HOME", str(home))
        patch.setenv("SERVE_APP_CONFIG_DIR", str(CONFIGS))
        patch.setenv("RAY_AUTH_TOKEN", "t")

    def join(self, ray: RayStub) -> None:
        """From now on the commands are about this cluster."""
        self.ray = ray
        self._patch.setenv("SERVE_APP_CLUSTER_ADDRESS", ray.url)

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        settings = ["env=test", "model=[echo]"]
        if self.ray is not None:
            settings += ["cluster=existing", f"http.port={self.ray.port}", "cluster.settle_s=0"]
        self._patch.setattr(sys, "argv", ["serve-app", *arguments, *settings])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = self._capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


def test_plan_without_a_cluster_lists_what_up_would_make(run: Shell) -> None:
    code, out, _ = run("plan")
    assert code == 2
    assert "+ version 1" in out
    assert out.splitlines()[-1] == "Apply with: serve-app up"
    code, out, _ = run("plan", "--json")
    assert code == 2
    assert json.loads(out)["fresh"]


@pytest.mark.parametrize("command", ["plan", "apply", "history", "rollback"])
def test_wrong_usage_is_not_taken_for_changes(run: Shell, command: str) -> None:
    assert run(command, "--no-such")[0] == 64


def test_rollback_takes_one_revision(run: Shell) -> None:
    assert run("rollback", "1", "2")[0] == 64
    assert run("rollback", "first")[0] == 64


def test_commands_that_need_a_cluster_say_how_to_start_one(run: Shell) -> None:
    for command in ("apply", "rollback"):
        code, _, err = run(command)
        assert code == 1
        assert "serve-app up" in err
    code, out, _ = run("history")
    assert (code, out) == (0, "Nothing has been deployed with this database yet.\n")


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        (WEIGHTS % 50, "must sum up to 100"),
        (WEIGHTS % 0, "must sum up to 100"),
        ("models.echo.release.candidates=[{version: '7', weight: 100}]", '"7" is not a version'),
    ],
)
def test_a_wrong_release_is_an_error_and_no_plan(run: Shell, override: str, complaint: str) -> None:
    code, out, err = run("plan", override)
    assert (code, out) == (1, "")
    assert complaint in err


def test_plan_apply_plan_and_back(run: Shell, ray: RayStub) -> None:
    run.join(ray)
    assert run("apply")[0] == 0
    code, out, _ = run("plan")
    assert (code, out) == (0, "No changes: the cluster runs this configuration.\n")

    for command in (("plan", SCALED), ("apply", "--dry-run", SCALED)):
        code, out, _ = run(*command)
        assert code == 2
        assert "  ~ version 1      changes in place: replicas.min 2 → 3" in out.splitlines()
        assert "No client will notice." in out
    assert len(ray.puts) == 1

    code, out, _ = run("apply", SCALED, "--reason", "more of it")
    assert code == 0
    assert "Revision 2 serves after" in out
    code, out, _ = run("rollback", "1", "--reason", "enough")
    assert code == 0
    assert "Revision 1 serves again." in out
    assert ray.puts[2] == ray.puts[0]
    code, out, _ = run("history", "--json")
    rows = json.loads(out)
    assert [(row["revision"], row["outcome"], row["reason"]) for row in rows] == [
        (3, "applied", "rollback to revision 1: enough"),
        (2, "applied", "more of it"),
        (1, "applied", ""),
    ]
    assert datetime.fromisoformat(rows[0]["created_at"]).tzinfo is not None
    assert "T" in rows[0]["created_at"]


def test_a_plan_that_would_be_refused_says_so_and_exits_with_1(run: Shell, ray: RayStub) -> None:
    run.join(ray)
    run("apply")
    gone = ["~models.echo.versions.1", WEIGHTS.replace("'1'", "'2'") % 100]
    code, out, _ = run("plan", *gone)
    assert code == 1
    assert "Refused: Version 1 of echo would disappear" in out
    code, _, err = run("apply", *gone)
    assert code == 1
    assert "Nothing was changed." in err
    assert len(ray.puts) == 1


def rollout(**fields: Any) -> Rollout:
    now = datetime.now(UTC)
    weights = {"origin": {"1": 100}, "target": {"2": 100}, "steps": (10, 100), "step": 0}
    its = {"id": 3, "model": "echo", "created_at": now, "changed_at": now, "evidence": {}}
    return Rollout.model_validate({**weights, **its, "state": "progressing", **fields})


def test_apply_says_what_becomes_of_the_release(run: Shell, ray: RayStub) -> None:
    run.join(ray)
    run("apply")
    wanted = WEIGHTS.replace("'1'", "'2'") % 100
    now = Release.model_validate({"candidates": [{"version": "1", "weight": 100}]})
    ray.live, ray.rollout = {"echo": now}, rollout(reason="version 2 is ready")
    _, out, _ = run("apply", wanted)
    assert "echo: rollout 3 is progressing; traffic is 1: 100%." in out
    assert "serve-app rollout echo" in out
    ray.rollout = None
    code, out, _ = run("apply", wanted)
    assert code == 0
    assert "echo: traffic stays 1: 100%, by test." in out
    assert "serve-app traffic echo 2=100" in out


def test_a_release_that_is_not_taken_over_is_a_failure(run: Shell, ray: RayStub) -> None:
    run.join(ray)
    run("apply")
    ray.stuck = True
    code, _, err = run("apply", SCALED, "cluster.ready_timeout_s=1")
    assert code == 1
    assert "has not taken the release of echo over" in err
    assert ray.puts[-1]["applications"] == ray.puts[0]["applications"]


def test_status_shows_live_weights_and_the_rollout(run: Shell, ray: RayStub) -> None:
    run.join(ray)
    run("apply")
    shared = [{"version": "1", "weight": 90}, {"version": "2", "weight": 10}]
    ray.live = {"echo": Release.model_validate({"candidates": shared})}
    ray.rollout = rollout(reason="version 2 is ready")
    _, out, _ = run("status", "metrics.enabled=false")
    rows = [line.split() for line in out.splitlines() if line.startswith("echo ")]
    assert [row[2] for row in rows] == ["90%", "10%"]
    assert re.search(r"echo: rollout 3 progressing \(\d s ago\): version 2 is ready", out)
    _, out, _ = run("status", "--json")
    (model,) = json.loads(out)["models"]
    assert (model["revision"], model["rollout"]["id"]) == (1, 3)


STEP = {"seconds": 192.0, "bake_s": 300, "answered": 1804, "min_samples": 100, "percent": 10}


def test_status_of_one_model_shows_its_arms_and_its_rollout(run: Shell, ray: RayStub) -> None:
    run.join(ray)
    run("apply")
    shared = [{"version": "1", "weight": 90}, {"version": "2", "weight": 10}]
    labels = {"stable": "1", "canary": "2"}
    ray.live = {"echo": Release.model_validate({"candidates": shared, "labels": labels})}
    evidence = {"step": STEP, "error_rate": {"holds": True}}
    ray.rollout = rollout(reason="version 2 is ready", evidence=evidence)
    code, out, _ = run("status", "echo")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("echo   0 req/s")
    assert lines[0].endswith("revision 1")
    rows = [line.split() for line in lines[2:4]]
    assert [row[:3] for row in rows] == [["1", "stable", "90%"], ["2", "canary", "10%"]]
    assert (
        "rollout 3   step 1 of 2 (10%), 3:12 of 5:00   guards hold (1,804 of 100 requests)   "
        "next: 100%"
    ) in lines
    ray.rollout = None
    ended = rollout(state="rolled_back", reason="error rate of version 2")
    ray.ended = [ended.model_dump(mode="json")]
    _, out, _ = run("status", "echo")
    assert re.search(r"rollout 3 rolled back \(\d s ago\): error rate of version 2", out)
    code, out, _ = run("status", "echo", "--json")
    assert json.loads(out)["rollout"]["state"] == "rolled_back"


def test_status_of_a_model_that_does_not_run(run: Shell, ray: RayStub) -> None:
    run.join(ray)
    run("apply")
    code, _, err = run("status", "other")
    assert (code, err) == (1, "There is no model 'other'. Running: echo\n")
    assert run("status", "echo", "other")[0] == 64


def test_a_cluster_of_another_release_of_the_program(run: Shell, ray: RayStub) -> None:
    run.join(ray)
    run("apply")
    assert ray.document is not None
    ray.document["applications"][0]["args"]["new_group"] = {}
    for command in (("status",), ("doctor",)):
        code, out, err = run(*command)
        assert code == 1
        assert "another release of serve-app" in out + err
    assert run("plan")[0] == 2


def test_a_failed_apply_exits_with_1_and_the_cause(run: Shell, ray: RayStub) -> None:
    run.join(ray)
    run("apply")
    ray.failing = {"echo@1": "serve_app.errors.PredictorError: no such thing"}
    code, _, err = run("apply", SCALED, "cluster.ready_timeout_s=1")
    assert code == 1
    assert err.startswith("echo 1: no such thing")


@pytest.mark.parametrize("command", ["plan", "apply", "history", "rollback"])
def test_help_shows_examples(run: Shell, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"Examples:\n    serve-app {command}" in out


def test_a_shell_gets_the_exit_codes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deployments.cli", "plan"]
    variables = {**os.environ, "SERVE_APP_HOME": str(tmp_path)}
    for arguments, code in (["model=[minilm]"], 2), (["--no-such"], 64), (["no.such=1"], 1):
        done = subprocess.run(
            [*command, *arguments], cwd=ROOT, env=variables, capture_output=True, timeout=60
        )
        assert done.returncode == code


def test_a_reason_stands_in_the_history(run: Shell, ray: RayStub) -> None:
    run.join(ray)
    run("apply", "--reason", "the first")
    run("apply", SCALED, "--reason", "more load")
    run("rollback", "--reason", "too slow")
    reasons = [row["reason"] for row in json.loads(run("history", "--json")[1])]
    assert reasons == ["rollback to revision 1: too slow", "more load", "the first"]


def test_the_config_as_json_is_the_one_as_yaml(run: Shell) -> None:
    printed, written = (run("config", *more, SCALED)[1] for more in (["--json"], []))
    found = json.loads(printed)
    assert found == yaml.safe_load(written)
    assert to_json(read_config(found)) == found
