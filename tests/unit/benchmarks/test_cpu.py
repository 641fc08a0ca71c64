"""CPU time of processes, on processes that we start and know."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from benchmarks import cpu

BURN = """
import sys, time
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end: pass
"""
PARENT = (
    BURN
    + """
import subprocess
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
child.stdout.readline()
print("ready", flush=True)
sys.stdin.readline()
burn(0.3)
child.wait()
"""
)
CHILD = BURN + 'burn(0.5); print("done", flush=True); time.sleep(60)'

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process in a session of its own; ends its whole session."""
    started: list[subprocess.Popen[str]] = []

    def begin(*command: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(child)
        return child

    yield begin
    for child in started:
        os.killpg(child.pid, 9)
        child.communicate()


def line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def test_only_time_since_start_counts(start: Start) -> None:
    code = BURN + 'burn(0.4); print("a", flush=True); sys.stdin.readline(); burn(0.3); print("b")'
    code += "; sys.stdout.flush(); sys.stdin.readline()"
    child = start(sys.executable, "-c", code)
    assert line(child) == "a"
    meter = cpu.CpuMeter([child.pid])
    meter.start()
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()
    assert line(child) == "b"
    used = meter.stop()
    assert set(used) == {"other"}
    assert 0.25 < used["other"] < 0.39


def test_children_count_too_even_those_that_start_meanwhile(start: Start) -> None:
    meter = cpu.CpuMeter([os.getpid()])
    meter.start()
    parent = start(sys.executable, "-c", PARENT, CHILD)
    assert line(parent) == "ready"
    used = sum(cpu.CpuMeter([parent.pid]).stop().values())
    assert used > 0.45
    assert sum(meter.stop().values()) >= used


def test_the_family_of_a_process(start: Start) -> None:
    # The brackets make the shell's child a child of init: only its session tells where it belongs.
    shell = start("bash", "-c", "(sleep 60 & echo ready); read line")
    assert line(shell) == "ready"
    deadline = time.monotonic() + 5.0
    found = cpu.family([shell.pid], cpu.processes())
    # "ready" may come before the child has turned from a shell into its command.
    while not any(each.command == "sleep 60" for each in found) and time.monotonic() < deadline:
        found = cpu.family([shell.pid], cpu.processes())
    assert any(process.command == "sleep 60" for process in found)
    assert all(process.session == shell.pid for process in found)
    assert os.getpid() not in {process.pid for process in found}


def test_a_root_that_has_ended_has_no_family() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert cpu.family([child.pid], cpu.processes()) == []
    assert cpu.CpuMeter([child.pid]).stop() == {}


def test_threads_of_a_process() -> None:
    threads = cpu.thread_seconds(os.getpid())
    assert os.getpid() in {tid for tid, _ in threads}
    assert all(seconds >= 0 for seconds in threads.values())


def test_a_process_name_may_hold_brackets() -> None:
    name, fields = cpu._fields("7 (a) b (c) S 1 2 3")
    assert (name, fields[0], fields[1]) == ("a) b (c", "S", "1")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("ray::ServeReplica:gateway:Ingress", "ingress"),
        ("ray::ServeReplica:gateway:ModelRouter", "router"),
        ("ray::ServeReplica:digits@2:ModelReplica", "replica digits@2"),
        ("ray::ServeReplica:digits@2:ModelReplica.predict", "replica digits@2"),
        ("ray::ServeReplica:default:DigitsApi", "replica DigitsApi"),
        ("ray::ProxyActor", "proxy"),
        ("ray::ServeController.listen_for_change", "controller"),
        ("/x/ray/core/src/ray/raylet/raylet --raylet_socket_name=/tmp/ray/s", "raylet"),
        ("/x/ray/core/src/ray/gcs/gcs_server --log_dir=/tmp/ray", "gcs"),
        ("python /x/ray/dashboard/dashboard.py --host=127.0.0.1", "dashboard"),
        ("ray-dashboard-MetricsHead-0 (python -c x)", "dashboard"),
        ("ray::DashboardAgent", "dashboard"),
        ("ray::RuntimeEnvAgent", "dashboard"),
        ("python -m benchmarks.servers.bare_uvicorn --port 1", "server"),
        ("python -m benchmarks.servers.bare_body --port 1", "server"),
        ("python -m benchmarks.servers.bare_grpc --port 1", "server"),
        ("python -m benchmarks.servers.ray_serve_default --port 1", "driver"),
        ("python -u /x/ray/_private/log_monitor.py", "other"),
        ("ray::IDLE", "other"),
        ("", "other"),
    ],
)
def test_roles(command: str, expected: str) -> None:
    assert cpu.role(command) == expected
