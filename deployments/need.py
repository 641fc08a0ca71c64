"""CPUs, GPUs and memory: what a document asks Ray for, and whether a cluster has it. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from deployments.manifest import Document

GIB = 1024**3
SLACK = 1e-6
"""Ray counts in ten-thousandths: sums of floats must not fail by their last digit."""


class Need(NamedTuple):
    """Amounts of what Ray reserves; memory only where it is declared."""

    cpus: float = 0.0
    gpus: float = 0.0
    memory_bytes: float = 0.0

    def plus(self, other: Need) -> Need:
        """Both together."""
        return Need(*[a + b for a, b in zip(self, other, strict=True)])

    def minus(self, other: Need) -> Need:
        """What is left, never below zero."""
        return Need(*[max(0.0, a - b) for a, b in zip(self, other, strict=True)])

    def most(self, other: Need) -> Need:
        """The larger amount of each kind."""
        return Need(*map(max, zip(self, other, strict=True)))

    def times(self, count: int) -> Need:
        """So many of it."""
        return Need(*[each * count for each in self])

    def of_kind(self, other: Need) -> Need:
        """Only the kinds of which the other has any."""
        return Need(*[a if b > SLACK else 0.0 for a, b in zip(self, other, strict=True)])

    def within(self, other: Need) -> bool:
        """Whether the other is enough for it."""
        return all(a <= b + SLACK for a, b in zip(self, other, strict=True))

    def __str__(self) -> str:
        parts = [_counted(self.cpus, "CPU")]
        if self.gpus > SLACK:
            parts.append(_counted(self.gpus, "GPU"))
        if self.memory_bytes > SLACK:
            parts.append(f"{self.memory_bytes / GIB:.1f} GiB memory")
        return " and ".join(part for part in parts if part != "0 CPUs" or len(parts) == 1)


class Capacity(NamedTuple):
    """What a Ray cluster has."""

    nodes: tuple[Need, ...]
    """All of each living node."""
    used: Need | None
    """Reserved by whatever runs, ours and others'; None where nobody else can be."""

    @property
    def total(self) -> Need:
        """All nodes together."""
        return total(self.nodes)


class Load(NamedTuple):
    """The replicas of one deployment."""

    label: str
    each: Need
    before: Need
    """What is reserved now; nothing for a new deployment."""
    after: Need
    peak: Need
    first: Need
    """A new replica that must come up beside all old ones; nothing if they may go first."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a plan needs against what there is."""

    now: Need
    after: Need
    peak: Need
    """While old and new replicas run side by side."""
    total: Need
    free: Need
    shortage: str
    """Why it can never run on these nodes; empty when it can."""
    warning: str
    """What will be slow or narrow; empty when nothing is."""


def total(needs: tuple[Need, ...] | list[Need]) -> Need:
    """The sum."""
    return Need(*[sum(column) for column in zip(*needs, strict=True)]) if needs else Need()


def each_replica(options: Mapping[str, Any]) -> Need:
    """What Ray reserves for one replica of a deployment with these options."""
    actor = options.get("ray_actor_options") or {}
    return Need(
        float(actor.get("num_cpus") or 0.0),
        float(actor.get("num_gpus") or 0.0),
        float(actor.get("memory") or 0.0),
    )


def replica_count(options: Mapping[str, Any], running: int, *, begins: bool) -> int:
    """How many replicas these options ask for.

    Args:
        options: of a deployment.
        running: how many are wanted now.
        begins: it is deployed anew, so that one that may sleep is loaded once.
    """
    scaling = options.get("autoscaling_config")
    if not scaling:
        return int(options.get("num_replicas") or 1)
    if begins:
        running = max(running, scaling.get("initial_replicas") or 0)
    return int(min(max(running, scaling["min_replicas"]), scaling["max_replicas"]))


def options_of(document: Document | None) -> Iterator[tuple[tuple[str, str], Mapping[str, Any]]]:
    """The options of each deployment, by (application, deployment)."""
    for application in document["applications"] if document is not None else []:
        for options in application["deployments"]:
            yield (application["name"], options["name"]), options


def loads(
    before: Document | None,
    after: Document,
    targets: Mapping[tuple[str, str], int],
    restarts: frozenset[tuple[str, str]],
) -> list[Load]:
    """The load of every deployment that is there before or after.

    Args:
        before: what runs.
        after: what shall run.
        targets: replicas that each deployment wants now, as autoscaling has decided.
        restarts: the deployments whose replicas are replaced.
    """
    old, new = dict(options_of(before)), dict(options_of(after))
    found = []
    for key in dict.fromkeys([*old, *new]):
        count = 0
        if key in old:
            count = targets.get(key, replica_count(old[key], 0, begins=False))
        was = each_replica(old[key]).times(count) if key in old else Need()
        each = each_replica(new[key]) if key in new else Need()
        replicas = surge = 0
        if key in new:
            begins = key in restarts or old.get(key) != new[key]
            replicas = replica_count(new[key], count, begins=begins)
        if key in restarts:
            surge = math.ceil(replicas * new[key].get("max_surge_percent", 0) / 100)
        becomes = each.times(replicas)
        peak = was.plus(each.times(surge)).most(becomes)
        first = each if surge else Need()
        found.append(Load("@".join(key), each, was, becomes, peak, first))
    return found


def weigh(found: list[Load], capacity: Capacity) -> Resources:
    """What is needed now, after and in between, against the cluster."""
    now, after, peak = (
        total([getattr(load, when) for load in found]) for when in ("before", "after", "peak")
    )
    used = now if capacity.used is None else capacity.used
    others = used.minus(now)
    available = capacity.total.minus(others)
    shortage = _shortage(found, after, available, capacity)
    warning = ""
    if not shortage and not peak.within(available):
        warning = (
            f"Old and new replicas do not all fit side by side (that would take "
            f"{peak.minus(available)} more): they replace one another in turns, which takes longer."
        )
    free = capacity.total.minus(used)
    return Resources(now, after, peak, capacity.total, free, shortage, warning)


def _shortage(found: list[Load], after: Need, available: Need, capacity: Capacity) -> str:
    if not after.within(available):
        return f"Does not fit: needs {after.minus(available)} more than the cluster can give."
    for load in found:
        if not any(load.each.within(node) for node in capacity.nodes):
            return (
                f"Does not fit: one replica of {load.label} needs {load.each}, more than any node "
                "has."
            )
        if load.first != Need():
            # Everybody else is as small as they ever get.
            others = total(
                [
                    Need(*map(min, zip(each.before, each.after, strict=True)))
                    for each in found
                    if each is not load
                ]
            )
            needed = others.plus(load.before).plus(load.first)
            if not needed.within(available):
                return (
                    f"Does not fit: {load.label} restarts, and its first new replica needs "
                    f"{needed.minus(available)} more beside the old ones."
                )
    return ""


def _counted(amount: float, unit: str) -> str:
    text = f"{amount:.2f}".rstrip("0").rstrip(".")
    return f"{text} {unit}{'' if text == '1' else 's'}"
