"""`serve-app up` and `down`: from a config to a serving cluster, and back to nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from deployments import node as ray_node
from deployments.apply import alone, apply, prepare, remove
from deployments.home import changing, interruptible
from deployments.live import document as running_document
from deployments.naming import GATEWAY
from deployments.preflight import check_ports
from deployments.serve_api import ServeApi
from deployments.target import find_target, local_target, running_target
from deployments.terminal import say, step
from serve_app.config.root import Config
from serve_app.errors import ClusterError


def up(config: Config, home: Path, actor: str, reason: str = "") -> float:
    """Starts or joins Ray, applies the config, waits until it serves.

    Returns:
        Seconds until everything answered.

    Raises:
        ClusterError: it failed; what ran before runs again, and what was started here is gone.
    """
    began = time.monotonic()
    with interruptible(), alone(config, home) as log:
        target = find_target(config, home)
        prepare(config, home, target)
        if target is not None:
            apply(config, home, target, log, actor, reason)
            return time.monotonic() - began
        check_ports(config)
        with step("Starting Ray on this machine"):
            node = ray_node.start(config, home)
        try:
            apply(config, home, local_target(node, home), log, actor, reason)
        except BaseException:
            with step("Stopping what was started"):
                ray_node.stop(node, home)
            raise
    return time.monotonic() - began


def apply_here(
    config: Config, home: Path, actor: str, reason: str = ""
) -> tuple[float, int | None]:
    """Applies the config to the cluster that runs; see `deployments.apply.apply`.

    Returns:
        Seconds until everything answered, and the revision; None if there was nothing to do.

    Raises:
        ClusterError: no cluster runs, or it failed and what ran before runs again.
    """
    began = time.monotonic()
    with interruptible(), alone(config, home) as log:
        target = running_target(config, home)
        prepare(config, home, target)
        revision = apply(config, home, target, log, actor, reason)
    return time.monotonic() - began, revision


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
