"""From nothing to serving to nothing: what `up` and `down` leave behind."""

from __future__ import annotations

import http.server
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cluster import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(280)]

ECHO = ["model=[echo]", "models.echo.versions.1.replicas={min: 1, max: 1}"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of its own that is gone afterwards, whatever happens."""
    target = Cluster(tmp_path, overrides=ECHO)
    yield target
    target.run("down", check=False)


def test_up_is_idempotent_and_down_leaves_nothing(cluster: Cluster) -> None:
    assert cluster.run("down").stdout.strip() == "Nothing runs here."
    first = cluster.run("up").stdout
    assert "Try it:" in first
    pids = {process.pid for process in cluster.processes()}
    cluster.run("up")
    assert {p.pid for p in cluster.processes() if "ray::Serve" in " ".join(p.cmdline())} <= pids
    assert cluster.listening() == set(cluster.ports)
    command = first.split("Try it:\n")[1].split("\n\n")[0]
    answer = subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout
    assert '"model_name":"echo"' in answer
    assert (cluster.home / "ray-token").stat().st_mode & 0o077 == 0
    cluster.run("down")
    assert not cluster.listening()
    assert not cluster.processes()


def test_a_failed_first_up_leaves_nothing(cluster: Cluster) -> None:
    broken = "models.echo.versions.2.predictor._target_=serve_app.predictors.echo.Nothing"
    done = cluster.run("up", overrides=[broken], check=False)
    assert done.returncode == 1
    assert "Nothing" in done.stderr
    assert "Traceback" not in done.stderr
    assert not cluster.listening()
    assert not cluster.processes()


def test_a_taken_port_is_named_with_its_owner(cluster: Cluster) -> None:
    with http.server.HTTPServer(
        ("127.0.0.1", cluster.ports[0]), http.server.BaseHTTPRequestHandler
    ):
        done = cluster.run("up", check=False)
    assert done.returncode == 1
    assert f"Port {cluster.ports[0]} is taken by pid" in done.stderr
    assert "http.port=" in done.stderr
    assert not cluster.processes()


def test_wrong_usage_has_its_own_exit_code(cluster: Cluster) -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "serve-app", "up", "--no-such-option"],
        env=cluster.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 64


def test_render_is_deterministic_and_accepted_by_serve(cluster: Cluster) -> None:
    import yaml
    from ray.serve.schema import ServeDeploySchema

    first, second = (cluster.run("render").stdout for _ in range(2))
    assert first == second
    ServeDeploySchema.model_validate(yaml.safe_load(first))
