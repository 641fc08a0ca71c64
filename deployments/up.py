"""`serve-app up` and `down`: from a config to a serving cluster, and back to nothing."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import deployments
import serve_app
from deployments import node as ray_node
from deployments.apply import apply, previous_document, remove, restore
from deployments.manifest import Document, render
from deployments.node import LocalNode, local_url
from deployments.serve_api import ServeApi
from deployments.status import DeploymentState
from deployments.terminal import say, step
from serve_app.config.model import ModelConfig
from serve_app.config.root import Config
from serve_app.errors import ClusterError, ConfigError, ServeAppError
from serve_app.examples.prepare import prepare_examples
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
    """The running cluster that this config means: joined by address, or started here."""
    if config.cluster.address is not None:
        token = os.environ.get("RAY_AUTH_TOKEN") or ray_node.token_path(home).read_text()
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
    check_artifacts(config, home)
    target = find_target(config, home)
    started = target is None
    if target is None:
        check_ports(config)
        with step("Starting Ray on this machine"):
            node = ray_node.start(config, home)
        target = Target(node.dashboard, ray_node.token_path(home).read_text(), node)
    document = render(config, home=str(home), build=build_id())
    log = DeploymentLog(config.database)
    try:
        with target.api() as api:
            before = None if started else previous_document(api)
            revision = log.record(actor, config, document)
            try:
                apply(api, config, document, show_state)
            except (ServeAppError, KeyboardInterrupt) as error:
                reason = str(error) or type(error).__name__
                try:
                    _undo(api, before, target, config)
                finally:
                    log.finish(revision, "failed", reason)
                raise
            log.finish(revision, "applied", "")
    except (ServeAppError, KeyboardInterrupt):
        if started and target.node is not None:
            with step("Stopping what was started"):
                ray_node.stop(target.node, home)
        raise
    return time.monotonic() - began


def _undo(api: ServeApi, before: Document | None, target: Target, config: Config) -> None:
    if before is not None:
        with step("Putting the former deployment back"):
            back = restore(api, before, config.cluster.ready_timeout_s)
        say("The former deployment serves." if back else "The former deployment is NOT ready.")
    elif target.node is None:
        remove(api, config.cluster.ready_timeout_s)


def down(home: Path, timeout_s: float) -> bool:
    """Drains and stops the cluster of this home; False when none runs."""
    node = ray_node.find(home)
    if node is None:
        return False
    with step("Draining and stopping"):
        try:
            with ServeApi(node.dashboard, ray_node.token_path(home).read_text()) as api:
                remove(api, timeout_s)
        except ClusterError as error:
            say(f"Stopping without a drain: {error}")
        ray_node.stop(node, home)
    return True


def check_ports(config: Config) -> None:
    """Raises ClusterError when a port that we need is taken, naming who has it."""
    ports = {
        "http.port": config.http.port,
        "cluster.gcs_port": config.cluster.gcs_port,
        "cluster.dashboard_port": config.cluster.dashboard_port,
    }
    if config.grpc.enabled:
        ports["grpc.port"] = config.grpc.port
    if config.metrics.enabled:
        ports["metrics.port"] = config.metrics.port
    for key, port in ports.items():
        owner = ray_node.port_owner(port)
        if owner is not None:
            raise ClusterError(
                f"Port {port} is taken by {owner}. Stop it, or choose another: "
                f"serve-app up {key}={port + 80}"
            )


def check_artifacts(config: Config, home: Path, *, make: bool = True) -> None:
    """Makes the example models where they are missing; names other local files that are."""
    missing = _missing_files(config)
    examples = home / "models" / "digits"
    if make and any(path.is_relative_to(examples) for _, path in missing):
        with step("Training the example model digits"):
            prepare_examples(home)
        missing = _missing_files(config)
    if missing:
        lines = [f"{where}: no such file: {path}" for where, path in missing]
        raise ConfigError("\n".join([*lines, "Nothing was changed."]))


def _missing_files(config: Config) -> list[tuple[str, Path]]:
    missing = []
    for name, model in config.models.items():
        for version, settings in model.versions.items():
            uri = settings.artifact.uri if settings.artifact is not None else ""
            path = Path(uri.removeprefix("file://"))
            if uri and path.is_absolute() and not path.exists():
                missing.append((f"models.{name}.versions.{version}.artifact.uri", path))
    return missing


def show_state(label: str, state: DeploymentState) -> None:
    """One line per version when it starts, is ready, or has failed."""
    if state.ready or state.failed:
        count = f"{state.running} replica{'' if state.running == 1 else 's'}"
        say(f"  {label:<24} {count:<12} {'ready' if state.ready else state.message}")


def example_request(config: Config) -> tuple[str, str]:
    """A curl command for one deployed model, and that model's name."""
    name = "minilm" if "minilm" in config.models else next(iter(config.models))
    model = config.models[name]
    body = json.dumps({"inputs": [_example(model, index) for index in range(len(model.inputs))]})
    url = local_url(config.http.host, config.http.port).removeprefix("http://")
    return name, (
        f"curl -s {url}/v2/models/{name}/infer -H 'content-type: application/json' \\\n"
        f"       -d '{body}'"
    )


def _example(model: ModelConfig, index: int) -> dict[str, Any]:
    """One row of the warm-up example as an Open Inference Protocol input."""
    spec = model.inputs[index]
    shape = [1 if dim == -1 else dim for dim in spec.shape]
    rows = next((v.warm_up[spec.name] for v in model.versions.values() if v.warm_up), None)
    if spec.datatype == "BYTES":
        data: Any = ["hello"] * max(1, len(shape) and shape[0])
    elif isinstance(rows, list) and rows:
        data = rows[:1]
    else:
        count = 1
        for dim in shape:
            count *= dim
        data = [0] * count
    return {"name": spec.name, "shape": shape, "datatype": spec.datatype, "data": data}
