"""The cluster that a command works on, and the code that it would put there."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import deployments
import serve_app
from deployments import node as ray_node
from deployments.node import LocalNode
from deployments.serve_api import ServeApi
from serve_app.config.root import Config
from serve_app.errors import ClusterError, ConfigError


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
    return None if node is None else local_target(node, home)


def local_target(node: LocalNode, home: Path) -> Target:
    """The cluster of a node that was started here."""
    return Target(node.dashboard, ray_node.token_path(home).read_text(), node)


def running_target(config: Config, home: Path) -> Target:
    """As `find_target`.

    Raises:
        ClusterError: no cluster runs.
    """
    target = find_target(config, home)
    if target is None:
        raise ClusterError("No cluster runs here. Start one with: serve-app up")
    return target


def own_target(dashboard: str, home: Path) -> Target:
    """The cluster that this process is a part of, wherever a config says it is.

    Raises:
        ClusterError: the process was given no token.
    """
    token, path = os.environ.get("RAY_AUTH_TOKEN"), os.environ.get("RAY_AUTH_TOKEN_PATH")
    if not token and path:
        token = Path(path).read_text()
    if not token:
        raise ClusterError("The head node has neither RAY_AUTH_TOKEN nor RAY_AUTH_TOKEN_PATH")
    return Target(dashboard, token, ray_node.find(home))
