"""Brings a cluster to a rendered document, and waits until it serves or says why not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx

from deployments.manifest import Document
from deployments.naming import GATEWAY
from deployments.node import local_url
from deployments.serve_api import ServeApi
from deployments.status import DeploymentState, states
from serve_app.config.root import Config
from serve_app.errors import ClusterError

POLL_S = 0.25

Progress = Callable[[str, DeploymentState], None]
"""Told about every change of one deployment's state: label and state."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A deploy that reached its goal."""

    seconds: float
    labels: tuple[str, ...]


def apply(api: ServeApi, config: Config, document: Document, progress: Progress) -> Applied:
    """Sends the document and waits until every version answers through the ingress.

    Raises:
        ClusterError: a deployment failed, or `cluster.ready_timeout_s` passed; says which and why.
    """
    began = time.monotonic()
    api.put(document)
    deadline = began + config.cluster.ready_timeout_s
    seen: dict[str, DeploymentState] = {}
    while True:
        now = dict(states(api.details(), config))
        for label, state in now.items():
            if seen.get(label) != state:
                seen[label] = state
                progress(label, state)
        _raise_failures(now)
        if all(state.ready for state in now.values()) and _answers(config):
            return Applied(time.monotonic() - began, tuple(now))
        if time.monotonic() > deadline:
            raise ClusterError(_late(now, config.cluster.ready_timeout_s))
        time.sleep(POLL_S)


def remove(api: ServeApi, timeout_s: float) -> None:
    """Removes all applications and waits until their replicas have drained."""
    api.delete()
    deadline = time.monotonic() + timeout_s
    while api.details().get("applications"):
        if time.monotonic() > deadline:
            raise ClusterError(f"applications still drain after {timeout_s:.0f} s")
        time.sleep(POLL_S)


def restore(api: ServeApi, document: Document, timeout_s: float) -> bool:
    """Puts the last good document back; True when its applications run again."""
    api.put(document)
    names = [application["name"] for application in document["applications"]]
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        applications = api.details().get("applications", {})
        if all(applications.get(name, {}).get("status") == "RUNNING" for name in names):
            return True
        time.sleep(POLL_S)
    return False


def _raise_failures(now: Mapping[str, DeploymentState]) -> None:
    failed = [f"{label}: {state.message}" for label, state in now.items() if state.failed]
    if failed:
        raise ClusterError("\n".join(failed))


def _late(now: Mapping[str, DeploymentState], timeout_s: float) -> str:
    lines = [f"not ready after {timeout_s:.0f} s:"]
    for label, state in now.items():
        if not state.ready:
            what = f"{state.running} of {state.target} replicas, {state.state.lower()}"
            lines.append(f"  {label}: {what}. {state.message}".rstrip(". ") + ".")
    if len(lines) == 1:
        lines.append("  every replica runs, but the ingress does not answer yet")
    return "\n".join(lines)


def _answers(config: Config) -> bool:
    """Whether the ingress itself calls every deployed version ready."""
    base = local_url(config.http.host, config.http.port)
    try:
        with httpx.Client(base_url=base, timeout=2.0, trust_env=False) as client:
            return all(
                client.get(f"/v2/models/{name}/versions/{version}/ready").status_code == 200
                for name, model in config.models.items()
                for version in model.versions
            )
    except httpx.HTTPError:
        return False


def previous_document(api: ServeApi) -> Document | None:
    """The document that the cluster runs now, or None when it runs nothing of ours."""
    details = api.details()
    applications = details.get("applications", {})
    if GATEWAY not in applications:
        return None
    return {
        "proxy_location": "Disabled",
        "applications": [
            account["deployed_app_config"]
            for account in applications.values()
            if account.get("deployed_app_config")
        ],
    }
