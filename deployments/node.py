"""Ray on this machine: start it in the background, find it again, end every process of it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from deployments.options import CONTROLLER_ENVIRONMENT
from deployments.serve_api import ServeApi
from serve_app.config.root import Config
from serve_app.errors import ClusterError

MARK = "SERVE_APP_NODE"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
_KILL_S = 1.0


@dataclass(frozen=True, slots=True)
class LocalNode:
    """The Ray head node that `serve-app up` started on this machine."""

    pid: int
    created: float
    """Start time of the process, so that a reused pid is not mistaken for it."""
    dashboard: str
    mark: str
    """Stands in the environment of every process of this node."""
    settings: dict[str, int | None]
    """What Ray was started with: the part of the config that a running node cannot change."""

    def head(self) -> psutil.Process | None:
        """The process that watches over the others, or None when it has ended."""
        try:
            process = psutil.Process(self.pid)
            alive = abs(process.create_time() - self.created) < 1.0
            return process if alive and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def processes(self) -> list[psutil.Process]:
        """Every living process of this node, also when their head has died."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found


def token_path(home: Path) -> Path:
    """The file with Ray's token; made on first use, readable by its owner only."""
    path = home / "ray-token"
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
    return path


def find(home: Path) -> LocalNode | None:
    """The node of this home, if it is running."""
    try:
        node = LocalNode(**json.loads((home / "cluster.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return node if node.head() is not None or node.processes() else None


def start(config: Config, home: Path) -> LocalNode:
    """Starts Ray and waits until its API answers.

    Raises:
        ClusterError: Ray did not come up; nothing of it is left running.
    """
    log_path = home / "logs" / "ray.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex
    with log_path.open("wb") as log:
        child = subprocess.Popen(
            _command(config),
            env=_environment(config, home, mark),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    node = LocalNode(
        pid=child.pid,
        created=psutil.Process(child.pid).create_time(),
        dashboard=f"http://127.0.0.1:{config.cluster.dashboard_port}",
        mark=mark,
        settings=settings(config),
    )
    try:
        (home / "cluster.json").write_text(json.dumps(asdict(node), indent=2))
        deadline = time.monotonic() + START_TIMEOUT_S
        with ServeApi(node.dashboard, token_path(home).read_text()) as api:
            while not api.answers():
                if child.poll() is not None or time.monotonic() > deadline:
                    raise ClusterError(f"Ray did not start. Its last words are in {log_path}")
                time.sleep(0.1)
    except BaseException:
        stop(node, home)
        raise
    return node


def settings(config: Config) -> dict[str, int | None]:
    """The keys of `cluster` that are read when Ray starts, and only then."""
    keys = {"gcs_port", "dashboard_port", "num_cpus", "num_gpus", "object_store_mib"}
    return config.cluster.model_dump(include=keys)


def stop(node: LocalNode, home: Path) -> None:
    """Ends the node and every process that it started, by their pids."""
    family = node.processes()
    head = node.head()
    if head is not None:
        with suppress(psutil.NoSuchProcess):
            head.send_signal(signal.SIGTERM)
        psutil.wait_procs([head, *family], timeout=STOP_TIMEOUT_S)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    # Again and again: one that is about to be killed may start another.
    while (stragglers := node.processes()) and time.monotonic() < deadline:
        for straggler in stragglers:
            with suppress(psutil.NoSuchProcess):
                straggler.kill()
        psutil.wait_procs(stragglers, timeout=_KILL_S)
    forget(home)


def forget(home: Path) -> None:
    """Removes what is noted of a node that has ended."""
    (home / "cluster.json").unlink(missing_ok=True)


def port_owner(port: int) -> str | None:
    """Who listens on a TCP port of this machine, in words; None when nobody does."""
    for connection in psutil.net_connections(kind="tcp"):
        if (
            connection.status == psutil.CONN_LISTEN
            and connection.laddr
            and connection.laddr.port == port
        ):
            if connection.pid is None:
                return "a process of another user"
            try:
                command = " ".join(psutil.Process(connection.pid).cmdline())
            except psutil.Error:
                command = "?"
            return f"pid {connection.pid} ({command[:60].strip()})"
    return None


def _command(config: Config) -> list[str]:
    cluster = config.cluster
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *("--node-ip-address", "127.0.0.1"),
        *("--port", str(cluster.gcs_port)),
        *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(cluster.dashboard_port)),
        *("--object-store-memory", str(cluster.object_store_mib * 1024 * 1024)),
        *("--include-log-monitor", "false", "--no-monitor", "--disable-usage-stats"),
    ]
    if cluster.num_cpus is not None:
        command += ["--num-cpus", str(cluster.num_cpus)]
    if cluster.num_gpus is not None:
        command += ["--num-gpus", str(cluster.num_gpus)]
    return command


def _environment(config: Config, home: Path, mark: str) -> dict[str, str]:
    """What every process of the node inherits; replicas need no secret of the command line's."""
    hidden = {"RAY_AUTH_TOKEN", "RAY_ADDRESS"}
    if config.database.password_env is not None:
        hidden.add(config.database.password_env.root)
    return {
        **{name: value for name, value in os.environ.items() if name not in hidden},
        **CONTROLLER_ENVIRONMENT,
        MARK: mark,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path(home)),
        "RAY_memory_usage_threshold": "0.95",
        # Ray makes its workers polite by default; these ones serve.
        "RAY_worker_niceness": "0",
        "SERVE_APP_HOME": str(home),
    }
