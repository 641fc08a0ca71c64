"""A server under test: the cluster or a baseline, started for one block of measurements."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks import cpu, digits
from benchmarks.errors import BenchmarkError
from benchmarks.ports import free_ports

ROOT = Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers."""

    name: str
    url: str
    pid: int
    """Its first process; all others descend from it or live in its session."""
    log: Path
    start_s: float
    """From the start of the command to the first answer."""
    grpc: str = ""
    """host:port of its gRPC listener, if it has one."""


@contextmanager
def baseline(
    name: str, module: str, weights: Path, folder: Path, probe: bytes
) -> Iterator[Running]:
    """Runs one server of `benchmarks.servers`, and ends every process of it.

    Args:
        name: what the report calls it.
        module: its module.
        weights: the weights that it serves.
        folder: where its log goes.
        probe: a request body that it must answer before the measurement begins.
    """
    with (
        httpx.Client(trust_env=False, timeout=10.0) as client,
        launched(
            name,
            module,
            ["--weights", str(weights)],
            folder,
            lambda port: answers(client, f"http://127.0.0.1:{port}{digits.PATH}", probe),
        ) as server,
    ):
        yield server


@contextmanager
def launched(
    name: str,
    module: str,
    options: Sequence[str],
    folder: Path,
    is_up: Callable[[int], bool],
) -> Iterator[Running]:
    """Runs one server of `benchmarks.servers` on a free port, and ends every process of it.

    Args:
        name: what the report calls it.
        module: its module.
        options: of its command, besides ``--port``.
        folder: where its log goes.
        is_up: whether it answers on this port.
    """
    port = free_ports(1)[0]
    log = folder / f"{module}.log"
    command = [sys.executable, "-m", f"benchmarks.servers.{module}", "--port", str(port), *options]
    with log.open("ab") as sink:
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    try:
        began = time.monotonic()
        wait_until(lambda: is_up(port), name, child, log)
        seconds = time.monotonic() - began
        yield Running(
            name, f"http://127.0.0.1:{port}", child.pid, log, seconds, f"127.0.0.1:{port}"
        )
    finally:
        end_family(child.pid)
        child.wait(STOP_TIMEOUT_S)


def environment(**more: str) -> dict[str, str]:
    """Our environment without settings that would change a server."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SERVE_APP_"))}
    return {**inherited, "RAY_USAGE_STATS_ENABLED": "0", **more}


def wait_until(
    is_up: Callable[[], bool],
    name: str,
    child: subprocess.Popen[bytes],
    log: Path,
    poll_s: float = 0.05,
) -> None:
    """Waits for a server that has just been started.

    Raises:
        BenchmarkError: it ended, or did not answer in time.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while not is_up():
        if child.poll() is not None:
            raise BenchmarkError(f"the server ended with {child.returncode}:\n{tail(log)}")
        if time.monotonic() > deadline:
            raise BenchmarkError(f"no answer from {name} in {START_TIMEOUT_S:.0f} s:\n{tail(log)}")
        time.sleep(poll_s)


def answers(client: httpx.Client, url: str, body: bytes) -> bool:
    """Whether this request is answered with 200 now."""
    try:
        answer = client.post(url, content=body, headers={"content-type": "application/json"})
    except httpx.HTTPError:
        return False
    return answer.status_code == 200


def end_family(pid: int) -> None:
    """Ends a server by SIGTERM to its first process, then whatever is left of it, by pid."""
    members = _alive(cpu.family([pid], cpu.processes()))
    first = [process for process in members if process.pid == pid]
    for process in first:
        process.terminate()
    _, left = psutil.wait_procs(members, timeout=STOP_TIMEOUT_S)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=STOP_TIMEOUT_S)


def _alive(members: Sequence[cpu.Process]) -> list[psutil.Process]:
    found = []
    for member in members:
        try:
            found.append(psutil.Process(member.pid))
        except psutil.NoSuchProcess:
            continue
    return found


def tail(log: Path, lines: int = 30) -> str:
    """The end of a log."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return "\n".join(text.splitlines()[-lines:])
