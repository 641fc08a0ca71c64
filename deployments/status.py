"""What runs: the cluster's own account of applications and replicas."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deployments.naming import GATEWAY, INGRESS, REPLICA, application_name
from serve_app.config.model import ModelConfig, VersionConfig
from serve_app.domain.inference import VersionKey

FAILED = frozenset({"DEPLOY_FAILED"})


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """One deployment as the cluster sees it."""

    application: str
    state: str
    """Serve's word: NOT_STARTED, DEPLOYING, RUNNING, DEPLOY_FAILED, UNHEALTHY, DELETING."""
    running: int
    target: int
    message: str
    least: int
    """Replicas that it must have; more are wanted under load."""

    @property
    def ready(self) -> bool:
        """Whether the application runs as it should."""
        return self.state == "RUNNING" and self.least <= self.running

    @property
    def idle(self) -> bool:
        """Whether it sleeps: the next request starts a replica."""
        return self.ready and not self.running

    @property
    def failed(self) -> bool:
        """Whether Serve has given up on it; UNHEALTHY may still recover."""
        return self.state in FAILED


def deployment_state(
    details: dict[str, Any], application: str, name: str, least: int | None = None
) -> DeploymentState:
    """Picks one deployment out of Serve's account; an absent one has not started.

    Args:
        details: Serve's account.
        application: its name.
        name: of the deployment.
        least: replicas that it must have; None: as many as Serve aims at.
    """
    account = details.get("applications", {}).get(application)
    if account is None:
        return DeploymentState(application, "NOT_STARTED", 0, 0, "", 1)
    deployment = account.get("deployments", {}).get(name) or {}
    replicas = deployment.get("replicas", [])
    running = sum(1 for replica in replicas if replica.get("state") == "RUNNING")
    target = deployment.get("target_num_replicas") or 0
    message = deployment.get("message") or account.get("message") or ""
    if least is None:
        least = max(1, target)
    return DeploymentState(application, account["status"], running, target, cause(message), least)


def version_state(
    details: dict[str, Any], key: VersionKey, settings: VersionConfig
) -> DeploymentState:
    """The replicas of one version."""
    return deployment_state(details, application_name(key), REPLICA, settings.replicas.min)


def states(
    details: dict[str, Any], models: Mapping[str, ModelConfig]
) -> Iterator[tuple[str, DeploymentState]]:
    """Label and state of the ingress and of every version of the models."""
    yield "ingress", deployment_state(details, GATEWAY, INGRESS)
    for name, model in models.items():
        for version, settings in model.versions.items():
            yield f"{name} {version}", version_state(details, VersionKey(name, version), settings)


_NO_ROOM = re.compile(
    r"has (\d+) replicas that have taken more than \d+s to be scheduled\..*"
    r"for each replica: (\{.*?\}), total resources available: (\{.*?\})\.",
    re.DOTALL,
)
_OUR_ERROR = re.compile(r"serve_app\.errors\.\w+: (.+)")


def cause(message: str) -> str:
    """The one line of Serve's message that a person needs: the innermost error."""
    no_room = _NO_ROOM.search(message)
    if no_room is not None:
        count, needed, free = no_room.groups()
        replicas = "1 replica waits" if count == "1" else f"{count} replicas wait"
        return f"{replicas} for resources: each needs {needed}, free are {free}"
    ours = _OUR_ERROR.findall(message)
    if ours:
        return str(ours[-1])
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"^[\w.]*(Error|Exception)\b", line)]
    return (errors or lines or [""])[-1]
