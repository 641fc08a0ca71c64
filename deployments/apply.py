"""Brings a cluster to a rendered document, and waits until it serves or says why not."""

from __future__ import annotations

import time
from collections.abc import Mapping

import httpx

from deployments.live import listener_url
from deployments.manifest import Document
from deployments.serve_api import ServeApi
from deployments.status import DeploymentState, states
from deployments.terminal import say, waiting
from serve_app.config.root import Config
from serve_app.errors import ClusterError

POLL_S = 0.25


def apply(api: ServeApi, config: Config, document: Document) -> None:
    """Sends the document and waits until every version answers through the ingress.

    Raises:
        ClusterError: a deployment failed, or `cluster.ready_timeout_s` passed; says which and why.
    """
    api.put(document)
    wait_until_ready(api, config)


def wait_until_ready(api: ServeApi, config: Config) -> None:
    """Waits until every version answers; shows a line for each that becomes ready.

    Raises:
        ClusterError: a deployment failed, or `cluster.ready_timeout_s` passed; says which and why.
    """
    base = listener_url(config.http.host, config.http.port, api.dashboard)
    deadline = time.monotonic() + config.cluster.ready_timeout_s
    changing: set[str] = set()
    with waiting("Waiting for replicas"):
        while True:
            now = dict(states(api.details(), config.models))
            _raise_failures(now)
            _show_progress(now, changing)
            if all(state.ready for state in now.values()) and _answers(base, config):
                return
            if time.monotonic() > deadline:
                raise ClusterError(_late(now, config.cluster.ready_timeout_s))
            time.sleep(POLL_S)


def _show_progress(now: Mapping[str, DeploymentState], changing: set[str]) -> None:
    """A line for each deployment that has become ready since the last call."""
    for label, state in now.items():
        if not state.ready:
            changing.add(label)
        elif label in changing:
            changing.remove(label)
            count = f"{state.running} replica{'' if state.running == 1 else 's'}"
            say(f"  {label:<24} {count:<12} ready")


def remove(api: ServeApi, timeout_s: float) -> None:
    """Removes all applications and waits until their replicas have drained."""
    deadline = time.monotonic() + timeout_s
    api.delete(timeout_s)
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


def _answers(base: str, config: Config) -> bool:
    """Whether the ingress itself calls every deployed version ready."""
    try:
        with httpx.Client(base_url=base, timeout=2.0, trust_env=False) as client:
            return all(
                client.get(f"/v2/models/{name}/versions/{version}/ready").status_code == 200
                for name, model in config.models.items()
                for version in model.versions
            )
    except httpx.HTTPError:
        return False
