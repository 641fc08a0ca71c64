"""A real cluster for tests, driven as a user drives it: through `serve-app`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
SERVE_APP = Path(sys.executable).parent / "serve-app"
CONFIGS = Path(__file__).parent / "configs"


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@dataclass
class Cluster:
    """One home, one set of ports, and the commands on them."""

    home: Path
    ports: list[int] = field(default_factory=lambda: free_ports(5))
    overrides: Sequence[str] = ()
    variables: dict[str, str] = field(default_factory=dict)
    command: Path = SERVE_APP

    @property
    def http(self) -> str:
        return f"127.0.0.1:{self.ports[0]}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.ports[1]}"

    @property
    def metrics(self) -> str:
        return f"http://127.0.0.1:{self.ports[2]}/metrics"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "SERVE_APP_HOME": str(self.home),
            "SERVE_APP_CONFIG_DIR": str(CONFIGS),
            "NO_COLOR": "1",
            **self.variables,
        }

    def settings(self) -> list[str]:
        keys = ["http.port", "grpc.port", "metrics.port", "cluster.gcs_port"]
        keys.append("cluster.dashboard_port")
        return [
            "env=test",
            *(f"{key}={port}" for key, port in zip(keys, self.ports, strict=True)),
            *self.overrides,
        ]

    def run(
        self,
        *arguments: str,
        overrides: Sequence[str] = (),
        check: bool = True,
        settings: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command, with the settings of this cluster where it takes any after its name."""
        plain = arguments[0] == "down" or not settings
        given = [] if plain else [*self.settings(), *overrides]
        done = subprocess.run(
            [self.command, *arguments, *given],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=280,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{arguments} failed:\n{done.stdout}\n{done.stderr}")
        return done

    def status(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return report

    def status_quietly(self) -> dict[str, Any]:
        """The report, also while something is not ready."""
        done = self.run("status", "--json", check=False)
        report: dict[str, Any] = json.loads(done.stdout) if done.stdout else {"ready": False}
        return report

    def processes(self) -> list[psutil.Process]:
        """Every process of this cluster, found by the home in its environment."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("SERVE_APP_HOME") == str(self.home):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def replicas(self, title: str) -> list[psutil.Process]:
        """Replica processes whose title holds `title`, such as ``echo@1`` or ``Ingress``."""
        return [each for each in self.processes() if title in _title(each)]

    def listening(self) -> set[int]:
        return {
            each.laddr.port
            for each in psutil.net_connections(kind="tcp")
            if each.laddr and each.status == psutil.CONN_LISTEN and each.laddr.port in self.ports
        }


def _title(process: psutil.Process) -> str:
    """What a process calls itself; nothing if it has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
