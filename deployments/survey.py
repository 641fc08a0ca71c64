"""Looks at a cluster and plans what a config would do to it; changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from deployments.capacity import measure
from deployments.change import application, settings_of
from deployments.live import document as running_document
from deployments.manifest import Document, render
from deployments.naming import GATEWAY
from deployments.need import Capacity, Need
from deployments.plan import Plan, make_plan
from deployments.preflight import check_artifacts, port_problems, setting_problems
from deployments.serve_api import ServeApi
from deployments.stages import stages
from deployments.standings import standings
from deployments.status import states
from deployments.target import Target, build_id
from deployments.traffic import live_traffic
from serve_app.config.root import Config


@dataclass(frozen=True)
class Survey:
    """What runs, what shall run, and the plan between them."""

    before: Document | None
    after: Document
    plan: Plan
    sick: tuple[str, ...]
    """Labels of what shall run and is not ready now."""
    healthy: frozenset[str]
    """Names of the applications that run as they should."""

    @cached_property
    def stages(self) -> list[Document]:
        """What the cluster gets, one after the other."""
        return stages(self.before, self.after, renews=bool(self.plan.renewed))


def survey(api: ServeApi, config: Config, home: Path, target: Target) -> Survey:
    """Plans a config on a running cluster.

    Raises:
        ClusterError: the cluster does not answer, or runs what is not ours.
    """
    details = api.details()
    before = running_document(details)
    after = render(config, home=str(home), build=build_id())
    joined = target.node is None
    plan = make_plan(
        before,
        after,
        traffic=live_traffic(settings_of(before), standings(before, api.dashboard)),
        capacity=measure(api, shared=joined),
        targets=_targets(details),
        elastic=joined,
        problems=list(_problems(before, after, config, target)),
    )
    sick = tuple(label for label, state in states(details, config.models) if not state.ready)
    applications = details.get("applications", {}).items()
    healthy = frozenset(name for name, each in applications if each.get("status") == "RUNNING")
    return Survey(before, after, plan, sick, healthy)


def preview(config: Config, home: Path, target: Target | None) -> Plan:
    """What `apply` would do, or `up` where no cluster runs.

    Raises:
        ConfigError: a local artifact does not exist.
        ClusterError: the cluster does not answer, or runs what is not ours.
    """
    if target is None or target.node is not None:
        check_artifacts(config, home, examples_too=False)
    if target is not None:
        with target.api() as api:
            return survey(api, config, home, target).plan
    here = Need(
        float(config.cluster.num_cpus or os.cpu_count() or 1),
        float(config.cluster.num_gpus or 0),
        float(psutil.virtual_memory().total),
    )
    return make_plan(
        None,
        render(config, home=str(home), build=build_id()),
        traffic={},
        capacity=Capacity((here,), None),
        # Ray itself counts when it starts, and finds GPUs.
        elastic=True,
        problems=port_problems(config),
    )


def _problems(
    before: Document | None, after: Document, config: Config, target: Target
) -> Iterator[str]:
    """What only this machine knows: how Ray was started, and which ports are taken."""
    if target.node is None:
        return
    yield from setting_problems(config, target.node)
    old, new = _listeners(before), _listeners(after)
    moved = {name for name, port in new.items() if port not in old.values()}
    yield from port_problems(config, moved)


def _listeners(document: Document | None) -> dict[str, int]:
    """Key -> port of each listener in a document."""
    gateway = (application(document, GATEWAY) or {}).get("args") or {}
    return {
        f"{name}.port": gateway[name]["port"]
        for name in ("http", "grpc", "metrics")
        if gateway.get(name, {}).get("enabled", True) and name in gateway
    }


def _targets(details: dict[str, Any]) -> dict[tuple[str, str], int]:
    """How many replicas each deployment wants now, by (application, deployment)."""
    return {
        (name, deployment): int(account.get("target_num_replicas") or 0)
        for name, application in details.get("applications", {}).items()
        for deployment, account in application.get("deployments", {}).items()
    }
