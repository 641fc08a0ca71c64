"""From nothing to serving to nothing: what `up` and `down` leave behind."""

from __future__ import annotations

import fcntl
import http.server
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.cluster import ROOT, Cluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(280)]

ECHO = [
    "model=[echo]",
    "models.echo.versions.1.replicas={min: 1, max: 1}",
    "models.echo.versions.2.replicas={min: 1, max: 1}",
    # A GPU that only Ray believes in: half of it is reserved, the predictor gets the CPU.
    "cluster.num_gpus=1",
    "models.echo.versions.1.resources.num_gpus=0.5",
]


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
    second = cluster.run("up").stdout
    assert "ready" not in second.split("Serving after")[0]  # nothing had to become ready
    assert {p.pid for p in cluster.processes() if "ray::Serve" in " ".join(p.cmdline())} <= pids
    assert cluster.listening() == set(cluster.ports)
    command = first.split("Try it:\n")[1].split("\n\n")[0]
    answer = subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout
    assert '"model_name":"echo"' in answer
    facts = httpx.get(f"http://{cluster.http}/v2/models/echo/versions/1").json()["properties"]
    assert facts["device"] == "cpu"
    other = cluster.run("up", overrides=["cluster.num_cpus=7"], check=False)
    assert other.returncode == 1
    assert "cluster.num_cpus" in other.stderr
    assert "serve-app down" in other.stderr
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


def test_down_finds_what_a_dead_head_left_behind(cluster: Cluster) -> None:
    cluster.run("up")
    notes = cluster.home / "cluster.json"
    noted = notes.read_text()
    # Most of the others end by themselves without their head; one that stands still cannot.
    (replica,) = cluster.replicas("echo@1")
    replica.suspend()
    psutil.Process(json.loads(noted)["pid"]).kill()
    assert cluster.run("down").stdout.strip().endswith("Stopped.")
    assert not cluster.processes()
    assert not cluster.listening()
    assert not notes.exists()
    notes.write_text(noted)  # as when all of them have ended before anybody looks
    assert cluster.run("down").stdout.strip() == "Nothing runs here."
    assert not notes.exists()


@pytest.mark.parametrize("when", ["Ray starts", "replicas start"])
def test_whoever_stops_an_up_half_way_finds_nothing_left(cluster: Cluster, when: str) -> None:
    command = [str(cluster.command), "up", *cluster.settings()]
    with subprocess.Popen(command, env=cluster.environment, cwd=ROOT) as running:
        deadline = time.monotonic() + 60
        wanted = 3 if when == "Ray starts" else 1
        title = "ray" if when == "Ray starts" else "ServeController"
        while len(cluster.replicas(title)) < wanted and time.monotonic() < deadline:
            time.sleep(0.1)
        running.terminate()
        assert running.wait(90) != 0
    assert not cluster.processes()
    assert not cluster.listening()


def test_a_database_that_is_not_there_stops_an_up_before_it_begins(cluster: Cluster) -> None:
    url = "database.url=postgresql://nobody@127.0.0.1:1/none"
    done = cluster.run("up", overrides=["database=postgres", url], check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not cluster.processes()
    found = cluster.run("doctor", overrides=["database=postgres", url], check=False)
    assert found.returncode == 1
    assert "FAIL" in found.stdout


def test_doctor_is_content_with_a_fresh_home(tmp_path: Path) -> None:
    done = Cluster(tmp_path).run("doctor")
    assert "FAIL" not in done.stdout


def test_a_second_command_on_one_home_has_to_wait(cluster: Cluster) -> None:
    cluster.home.mkdir(exist_ok=True)
    with (cluster.home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = cluster.run("up", check=False)
    assert done.returncode == 1
    assert "another serve-app command is at work" in done.stderr


def test_a_running_cluster_can_be_joined_by_its_address(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cluster.run("up")
    guest = Cluster(tmp_path_factory.mktemp("guest"), ports=cluster.ports, overrides=ECHO)
    join = [f"cluster.address=http://127.0.0.1:{cluster.ports[4]}"]
    refused = guest.run("status", overrides=join, check=False)
    assert refused.returncode == 1
    assert "RAY_AUTH_TOKEN" in refused.stderr
    guest.variables["RAY_AUTH_TOKEN"] = (cluster.home / "ray-token").read_text()
    guest.run("up", overrides=[*join, "models.echo.versions.2.replicas={min: 2, max: 2}"])
    report = json.loads(guest.run("status", "--json", overrides=join).stdout)
    assert report["ready"]
    rows = {v["version"]: v for m in report["models"] for v in m["versions"]}
    assert rows["2"]["replicas"] == 2
    guest.run("down", *guest.settings(), *join)
    left = guest.run("status", overrides=join, check=False)
    assert "Nothing is deployed" in left.stderr
    cluster.run("down")
    assert not cluster.processes()
