"""`serve-app up` and `down`: from a config to a serving cluster, and back to nothing."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import deployments
import serve_app
from deployments import node as ray_node
from deployments.apply import apply, remove, restore, wait_until_ready
from deployments.home import changing
from deployments.live import document as running_document
from deployments.manifest import Document, render, same
from deployments.naming import GATEWAY
from deployments.node import LocalNode
from deployments.preflight import check_artifacts, check_ports, check_settings, make_examples
from deployments.serve_api import ServeApi
from deployments.terminal import say, step
from serve_app.config.root import Config
from serve_app.errors import ClusterError, ConfigError
from serve_app.store.deployments import DeploymentLog


@dataclass(frozen=True, slots=True)
class Target:
    """The cluster that a command works on."""

    dashboard: str
    token: str
    node: LocalNode | None
    """The local Ray node, when it is ours."""

    def api(self) -> ServeApi:
        """A client of the cluster's API."""
        return ServeApi(self.dashboard, self.token)


@cache
def build_id() -> str:
    """Names the code by its content: other code restarts replicas, equal code does not."""
    digest = hashlib.sha256()
    for package in (serve_app, deployments):
        root = Path(next(iter(package.__path__)))
        for path in sorted(root.rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def find_target(config: Config, home: Path) -> Target | None:
    """The running cluster that this config means: joined by address, or started here.

    Raises:
        ConfigError: a cluster is to be joined, and its token is not given.
    """
    if config.cluster.address is not None:
        token = os.environ.get("RAY_AUTH_TOKEN")
        if not token:
            raise ConfigError(
                f"cluster.address is {config.cluster.address}: set RAY_AUTH_TOKEN to its token"
            )
        return Target(config.cluster.address, token, None)
    node = ray_node.find(home)
    if node is None:
        return None
    return Target(node.dashboard, ray_node.token_path(home).read_text(), node)


def up(config: Config, home: Path, actor: str) -> float:
    """Starts or joins Ray, applies the config, waits until it serves.

    Returns:
        Seconds until everything answered.

    Raises:
        ClusterError: it failed; what ran before runs again, and what was started here is gone.
    """
    began = time.monotonic()
    with changing(home):
        target = find_target(config, home)
        if target is not None and target.node is not None:
            check_settings(config, target.node)
        if target is None or target.node is not None:
            make_examples(config, home)
            check_artifacts(config, home)
        log = DeploymentLog(config.database)
        if target is not None:
            _apply(config, home, target, log, actor)
            return time.monotonic() - began
        check_ports(config)
        with step("Starting Ray on this machine"):
            node = ray_node.start(config, home)
        try:
            target = Target(node.dashboard, ray_node.token_path(home).read_text(), node)
            _apply(config, home, target, log, actor)
        except BaseException:
            with step("Stopping what was started"):
                ray_node.stop(node, home)
            raise
        return time.monotonic() - began


def _apply(config: Config, home: Path, target: Target, log: DeploymentLog, actor: str) -> None:
    document = render(config, home=str(home), build=build_id())
    with target.api() as api:
        before = running_document(api.details())
        if before is not None and same(before, document):
            wait_until_ready(api, config)
            return
        _announce_removals(before, document)
        revision = log.record(actor, config, document)
        try:
            apply(api, config, document)
        except BaseException as error:
            try:
                _undo(api, before, config)
            finally:
                with suppress(ClusterError):  # must not hide the cause
                    log.finish(revision, "failed", str(error) or type(error).__name__)
            raise
        log.finish(revision, "applied", "")


def _announce_removals(before: Document | None, after: Document) -> None:
    names = {each["name"] for each in after["applications"]}
    gone = [each["name"] for each in before["applications"]] if before else []
    removed = sorted(name for name in gone if name not in names)
    if removed:
        say(f"Removing what the config no longer names: {', '.join(removed)}")


def _undo(api: ServeApi, before: Document | None, config: Config) -> None:
    if before is None:
        with step("Removing what was deployed"):
            remove(api, config.cluster.ready_timeout_s)
        return
    with step("Putting the former deployment back"):
        back = restore(api, before, config.cluster.ready_timeout_s)
    say("The former deployment serves." if back else "The former deployment is NOT ready.")


def down(home: Path, timeout_s: float) -> bool:
    """Drains and stops the cluster of this home; False when none runs."""
    with changing(home):
        node = ray_node.find(home)
        if node is None:
            ray_node.forget(home)  # it may have ended by itself
            return False
        with step("Draining and stopping"):
            if node.head() is not None:
                try:
                    with ServeApi(node.dashboard, ray_node.token_path(home).read_text()) as api:
                        remove(api, timeout_s)
                except ClusterError as error:
                    say(f"Stopping without waiting any longer: {error}")
            ray_node.stop(node, home)
        return True


def leave(config: Config, home: Path, timeout_s: float) -> bool:
    """Removes our applications from a cluster that was joined; False when there are none."""
    target = find_target(config, home)
    if target is None:
        return False
    with changing(home), target.api() as api:
        if running_document(api.details()) is None:
            return False
        with step(f"Removing {GATEWAY} and all models"):
            remove(api, timeout_s)
    return True


def example_body(config: Config) -> tuple[str, dict[str, Any]]:
    """One deployed model and a request for it."""
    name = "minilm" if "minilm" in config.models else next(iter(config.models))
    model = config.models[name]
    warm_up = next((each.warm_up for each in model.versions.values() if each.warm_up), {})
    inputs = []
    for spec in model.inputs:
        shape = [1 if dim == -1 else dim for dim in spec.shape]
        rows = warm_up.get(spec.name)
        data = rows[:1] if isinstance(rows, list) and rows and shape[:1] == [1] else None
        if data is None:
            count = 1
            for dim in shape:
                count *= dim
            data = (["hello"] if spec.datatype == "BYTES" else [0]) * count
        inputs.append({"name": spec.name, "shape": shape, "datatype": spec.datatype, "data": data})
    return name, {"inputs": inputs}
