"""The cluster, started and stopped by its own command line in a home of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import httpx

from benchmarks.errors import BenchmarkError
from benchmarks.ports import free_ports
from benchmarks.running import ROOT, Running, answers, environment, tail

UP_TIMEOUT_S = 240.0
DOWN_TIMEOUT_S = 90.0
NAME = "serve-app"

OBSERVED = ("metrics.enabled=true", "log.level=INFO", "log.access=true")
"""What is measured is what people run: metrics and one log line per request are on."""


CONFIGS = ROOT / "benchmarks" / "configs"
"""Models that exist for benchmarks only."""


POLITE = 19
"""Niceness of commands that change a cluster under load: people run them on another machine."""


class Ports(NamedTuple):
    """Where a cluster listens."""

    overrides: tuple[str, ...]
    """That put all listeners there."""
    http: str
    """host:port, as the others."""
    grpc: str
    metrics: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster(Running):
    """The cluster, which can be changed while it serves."""

    home: Path
    ports: Ports

    def apply(self, *overrides: str) -> None:
        """`serve-app apply` with these overrides in place of those that it was started with.

        Raises:
            BenchmarkError: it failed.
        """
        arguments = ["apply", *_arguments(overrides, self.ports)]
        _command(arguments, self.home, self.log, UP_TIMEOUT_S, POLITE)


@contextmanager
def cluster(
    overrides: Sequence[str], home: Path, probe_path: str, probe: bytes
) -> Iterator[Cluster]:
    """`serve-app up` with these overrides on free ports, and `serve-app down` at the end.

    Args:
        overrides: for the configuration, such as ``model=[digits]``; the models in
            `benchmarks/configs` can be named as well.
        home: its state; made here when it is missing.
        probe_path: where `probe` is posted.
        probe: a request body; its first answer ends the measurement of the start.
    """
    home.mkdir(parents=True, exist_ok=True)
    log = home / "serve-app.log"
    chosen = ports()
    url = f"http://{chosen.http}"
    try:
        start_s = _up(_arguments(overrides, chosen), home, log, url + probe_path, probe)
        pid = first_pid(home)
        yield Cluster(NAME, url, pid, log, start_s, chosen.grpc, home=home, ports=chosen)
    finally:
        _command(["down", "--timeout", "10"], home, log, DOWN_TIMEOUT_S)


def ports() -> Ports:
    """Free ports for all listeners."""
    keys = ("http.port", "grpc.port", "metrics.port", "cluster.gcs_port", "cluster.dashboard_port")
    found = free_ports(len(keys))
    overrides = tuple(f"{key}={port}" for key, port in zip(keys, found, strict=True))
    return Ports(overrides, *(f"127.0.0.1:{port}" for port in found[:3]))


def _arguments(overrides: Sequence[str], chosen: Ports) -> list[str]:
    return ["--config-dir", str(CONFIGS), *OBSERVED, *overrides, *chosen.overrides]


def first_pid(home: Path) -> int:
    """The first process of the cluster of this home."""
    try:
        return int(json.loads((home / "cluster.json").read_text())["pid"])
    except (OSError, ValueError, KeyError) as exc:
        raise BenchmarkError(f"no cluster runs in {home}: {exc}") from exc


def prepare_models(home: Path) -> Path:
    """Trains the example models and returns the weights of digits version 2."""
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "serve_app.examples.prepare", "--home", str(home)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchmarkError(f"the example models could not be made:\n{done.stderr}")
    return home / "models" / "digits" / "2" / "model.safetensors"


def _up(arguments: Sequence[str], home: Path, log: Path, url: str, probe: bytes) -> float:
    """Runs `up`; returns the seconds from its start to the first answer."""
    clock = _FirstAnswer(url, probe)
    clock.start()
    try:
        _command(["up", *arguments], home, log, UP_TIMEOUT_S)
        return clock.wait(10.0)
    finally:
        clock.stop()


def _command(
    arguments: Sequence[str], home: Path, log: Path, timeout_s: float, niceness: int = 0
) -> None:
    command = ["nice", "-n", str(niceness), sys.executable, "-m", "deployments.cli", *arguments]
    # Replicas inherit the path, on which they find the predictors of `benchmarks`.
    env = environment(SERVE_APP_HOME=str(home), PYTHONPATH=str(ROOT))
    with log.open("ab") as sink:
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired as exc:
            raise BenchmarkError(f"serve-app {arguments[0]} did not end:\n{tail(log)}") from exc
    if done.returncode != 0:
        raise BenchmarkError(f"serve-app {arguments[0]} failed:\n{tail(log)}")


class _FirstAnswer(threading.Thread):
    """Asks every 50 ms, from its start until the first answer of 200."""

    def __init__(self, url: str, probe: bytes) -> None:
        super().__init__(daemon=True)
        self._url, self._probe = url, probe
        self._stopped = threading.Event()
        self._answered = threading.Event()
        self._seconds = 0.0

    def run(self) -> None:
        """Asks."""
        began = time.monotonic()
        with httpx.Client(trust_env=False, timeout=5.0) as client:
            while not self._stopped.wait(0.05):
                if answers(client, self._url, self._probe):
                    self._seconds = time.monotonic() - began
                    self._answered.set()
                    return

    def wait(self, timeout_s: float) -> float:
        """Seconds to the first answer.

        Raises:
            BenchmarkError: there was none.
        """
        if not self._answered.wait(timeout_s):
            raise BenchmarkError(f"the cluster is up, but {self._url} does not answer")
        return self._seconds

    def stop(self) -> None:
        """Ends the asking."""
        self._stopped.set()
        self.join(10.0)
