"""What a Ray cluster has, by its own account."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deployments.need import Capacity, Need
from deployments.serve_api import ServeApi


def measure(api: ServeApi, *, shared: bool) -> Capacity:
    """Asks the cluster for its nodes.

    Args:
        api: of the cluster.
        shared: others may reserve parts of it, so what is in use is asked for as well. That
            account is some seconds old; on a cluster of our own it is not needed.
    """
    return capacity(api.nodes(), api.usage() if shared else None)


def capacity(
    nodes: Sequence[Mapping[str, Any]], usage: Mapping[str, Sequence[float]] | None
) -> Capacity:
    """Ray's accounts in our words. Pure."""
    alive = [each["resources_total"] for each in nodes if each.get("state") == "ALIVE"]
    used = None
    if usage is not None:
        used = need({name: amounts[0] for name, amounts in usage.items()})
    return Capacity(tuple(need(each) for each in alive), used)


def need(resources: Mapping[str, float]) -> Need:
    """Ray's names of resources in ours."""
    return Need(
        float(resources.get("CPU", 0.0)),
        float(resources.get("GPU", 0.0)),
        float(resources.get("memory", 0.0)),
    )
