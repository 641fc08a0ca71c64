"""Waits until what was deployed serves, and goes on serving, or says why not."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import httpx

from deployments.live import document as running_document
from deployments.live import listener_url
from deployments.manifest import Document, same
from deployments.serve_api import ServeApi
from deployments.status import DeploymentState, states
from deployments.terminal import say, step, waiting
from serve_app.config.root import Config
from serve_app.domain.inference import VersionKey
from serve_app.errors import ClusterError, DeploymentConflict

POLL_S = 0.25


def wait_until_ready(
    api: ServeApi,
    config: Config,
    document: Document,
    shown: Collection[str] = (),
    ignored: Collection[str] = (),
) -> None:
    """Waits until every version answers.

    An ingress answers for a version once ModelRouter has told it of a ready replica, with the
    release that is in force. So traffic moves before this returns, and never before that.

    Args:
        api: of the cluster.
        config: what was asked for.
        document: its document, which the cluster must go on running.
        shown: labels of what gets a line when it becomes ready.
        ignored: labels of what is not waited for.

    Raises:
        DeploymentConflict: somebody else has replaced the document.
        ClusterError: a deployment failed, or `cluster.ready_timeout_s` passed; says which and why.
    """
    base = listener_url(config.http.host, config.http.port, api.dashboard)
    deadline = time.monotonic() + config.cluster.ready_timeout_s
    progress = _Progress(shown)
    with waiting("Waiting for replicas") as show:
        while True:
            now = _states(api.details(), config, document, ignored)
            _raise_failures(now)
            progress.update(now, show)
            if all(state.ready for state in now.values()) and _answers(base, config, now):
                return
            if time.monotonic() > deadline:
                raise ClusterError(_late(now, config.cluster.ready_timeout_s))
            time.sleep(POLL_S)


def settle(api: ServeApi, config: Config, document: Document, renewed: Collection[str]) -> None:
    """Watches new replicas for `cluster.settle_s`: some only fail once they have started.

    Raises:
        DeploymentConflict: somebody else has replaced the document.
        ClusterError: one of them has become unhealthy, or is gone; says which and why.
    """
    if not renewed or not config.cluster.settle_s:
        return
    deadline = time.monotonic() + config.cluster.settle_s
    now: Mapping[str, DeploymentState] = {}
    with step("Watching that what is new stays healthy"):
        while time.monotonic() < deadline:
            time.sleep(POLL_S)
            now = _states(api.details(), config, document, ())
            sick = [
                f"{label}: became {state.state.lower()} after it was ready. {state.message}"
                for label, state in now.items()
                if label in renewed and (state.failed or state.state == "UNHEALTHY")
            ]
            if sick:
                raise ClusterError("\n".join(sick))
    gone = [label for label in renewed if label in now and not now[label].running]
    if gone:
        raise ClusterError(f"no replica of {', '.join(gone)} is left after it was ready")


class _Progress:
    """A line for each deployment that becomes ready; on a terminal also what is still missing."""

    def __init__(self, shown: Collection[str]) -> None:
        self._shown = shown
        self._began = time.monotonic()
        self._missing: set[str] = set()

    def update(self, now: Mapping[str, DeploymentState], show: Callable[[str], None]) -> None:
        """Takes the states of this moment."""
        for label in now.keys() & set(self._shown):
            state = now[label]
            if not state.ready:
                self._missing.add(label)
            elif label in self._missing:
                self._missing.remove(label)
                count = f"{state.running} replica{'' if state.running == 1 else 's'}"
                seconds = time.monotonic() - self._began
                say(f"  {label:<24} {count:<12} ready in {seconds:.1f} s")
        starting = ", ".join(
            f"{label} ({now[label].running} of {now[label].target} ready)"
            for label in sorted(self._missing & now.keys())
        )
        show(f"Starting {starting}" if starting else "Waiting for the ingress")


def _states(
    details: dict[str, Any], config: Config, document: Document, ignored: Collection[str]
) -> dict[str, DeploymentState]:
    running = running_document(details)
    if running is None or not same(running, document):
        raise DeploymentConflict(
            "another apply has replaced this deployment while it was starting: that one counts, "
            "and nothing was put back"
        )
    found = states(details, config.models)
    return {label: state for label, state in found if label not in ignored}


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


def _answers(base: str, config: Config, awaited: Collection[str]) -> bool:
    """Whether the ingress itself calls every awaited version ready."""
    keys = [
        VersionKey(name, version)
        for name, model in config.models.items()
        for version in model.versions
        if f"{name} {version}" in awaited
    ]
    try:
        with httpx.Client(base_url=base, timeout=2.0, trust_env=False) as client:
            return client.get("/v2/health/live").status_code == 200 and all(
                client.get(f"/v2/models/{key.model}/versions/{key.version}/ready").status_code
                == 200
                for key in keys
            )
    except httpx.HTTPError:
        return False
