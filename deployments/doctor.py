"""`serve-app doctor`: what is fine, what is doubtful, what is wrong, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from deployments import node as ray_node
from deployments.live import live
from deployments.preflight import check_artifacts, check_ports
from deployments.serve_api import ServeApi
from deployments.status import states
from deployments.target import find_target
from serve_app.config.root import Config
from serve_app.errors import ServeAppError
from serve_app.store.deployments import DeploymentLog

GIB = 1024**3


class Finding(NamedTuple):
    """One line of the doctor."""

    level: Literal["ok", "warn", "FAIL"]
    text: str


def examine(config: Config, home: Path) -> Iterator[Finding]:
    """Looks at the machine, the configuration and, when one runs, the cluster."""
    yield _versions()
    yield from _machine(config, home)
    yield _database(config)
    try:
        target = find_target(config, home)
        if target is None:
            yield from _before_start(config, home)
            return
        with target.api() as api:
            details = api.details()
        running = live(details)
    except ServeAppError as error:
        yield Finding("FAIL", str(error))
        return
    yield _token(target.dashboard)
    if running is None:
        yield Finding("warn", "nothing is deployed. Deploy with: serve-app up")
        return
    for label, state in states(details, running.models):
        if state.ready:
            yield Finding("ok", f"{label}: {state.running} of {state.target} replicas")
        else:
            yield Finding("FAIL", f"{label}: {state.state.lower()}. {state.message}".strip())


def _versions() -> Finding:
    packages = ("ray", "torch", "fastapi", "grpcio")
    named = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    python = ".".join(map(str, sys.version_info[:3]))
    level: Literal["ok", "FAIL"] = "ok" if sys.version_info[:2] == (3, 11) else "FAIL"
    return Finding(level, f"python {python}, {named}")


def _machine(config: Config, home: Path) -> Iterator[Finding]:
    shared = shutil.disk_usage("/dev/shm").free / GIB
    needed = config.cluster.object_store_mib / 1024
    level: Literal["ok", "FAIL"] = "ok" if shared > needed else "FAIL"
    yield Finding(level, f"/dev/shm {shared:.1f} GiB free, {needed:.1f} GiB needed")
    home.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(home).free / GIB
    yield Finding("ok" if free > 2 else "warn", f"{home}: {free:.0f} GiB free")
    cores = float(config.cluster.num_cpus or os.cpu_count() or 1)
    wanted = config.ingress.num_cpus * config.ingress.replicas + config.cluster.router_num_cpus
    wanted += sum(
        # Also those that may sleep: each is loaded once.
        version.resources.num_cpus * max(1, version.replicas.min)
        for model in config.models.values()
        for version in model.versions.values()
    )
    text = f"{wanted:.1f} CPUs are asked for, this machine counts {cores:g}"
    if config.cluster.address is None and wanted > cores:
        yield Finding("FAIL", text + ". Lower resources.num_cpus or deploy fewer models")
    else:
        yield Finding("ok", text)


def _token(dashboard: str) -> Finding:
    """Whoever reaches an unguarded Ray runs code on it."""
    with ServeApi(dashboard, "wrong") as stranger:
        if stranger.answers():
            return Finding(
                "FAIL", f"Ray at {dashboard} answers without a token: RAY_AUTH_MODE=token"
            )
    return Finding("ok", f"Ray answers at {dashboard}, token authentication on")


def _database(config: Config) -> Finding:
    try:
        DeploymentLog(config.database).latest_applied()
    except ServeAppError as error:
        return Finding("FAIL", f"database: {error}")
    if config.database.url.startswith("sqlite"):
        return Finding(
            "ok" if config.env != "production" else "warn",
            "database: SQLite on this machine. Fine for one node; for more: database=postgres",
        )
    return Finding("ok", "database: PostgreSQL answers")


def _before_start(config: Config, home: Path) -> Iterator[Finding]:
    yield Finding("ok", "no cluster runs here. Start one with: serve-app up")
    checks: list[Callable[[], None]] = [
        lambda: check_ports(config),
        lambda: check_artifacts(config, home, examples_too=False),
    ]
    for check in checks:
        try:
            check()
        except ServeAppError as error:
            yield Finding("FAIL", str(error))
    if ray_node.port_owner(config.http.port) is None:
        yield Finding("ok", f"port {config.http.port} is free")
