"""What runs: the cluster's own account of applications and replicas."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deployments.naming import GATEWAY, INGRESS, REPLICA, application_name
from serve_app.config.model import ModelConfig
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

    @property
    def ready(self) -> bool:
        """Whether the application runs as it should."""
        return self.state == "RUNNING" and 0 < self.target <= self.running

    @property
    def failed(self) -> bool:
        """Whether Serve has given up on it; UNHEALTHY may still recover."""
        return self.state in FAILED


def deployment_state(details: dict[str, Any], application: str, name: str) -> DeploymentState:
    """Picks one deployment out of Serve's account; an absent one has not started."""
    account = details.get("applications", {}).get(application)
    if account is None:
        return DeploymentState(application, "NOT_STARTED", 0, 0, "")
    deployment = account.get("deployments", {}).get(name) or {}
    replicas = deployment.get("replicas", [])
    running = sum(1 for replica in replicas if replica.get("state") == "RUNNING")
    target = deployment.get("target_num_replicas") or 0
    message = deployment.get("message") or account.get("message") or ""
    return DeploymentState(application, account["status"], running, target, cause(message))


def states(
    details: dict[str, Any], models: Mapping[str, ModelConfig]
) -> Iterator[tuple[str, DeploymentState]]:
    """Label and state of the ingress and of every version of the models."""
    yield "ingress", deployment_state(details, GATEWAY, INGRESS)
    for name, model in models.items():
        for version in model.versions:
            application = application_name(VersionKey(name, version))
            yield f"{name} {version}", deployment_state(details, application, REPLICA)


_OUR_ERROR = re.compile(r"serve_app\.errors\.\w+: (.+)")


def cause(message: str) -> str:
    """The one line of Serve's message that a person needs: the innermost error."""
    ours = _OUR_ERROR.findall(message)
    if ours:
        return str(ours[-1])
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"^[\w.]*(Error|Exception)\b", line)]
    return (errors or lines or [""])[-1]
