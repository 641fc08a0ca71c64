"""Everything that applying a config does to a cluster, and why it may not. Pure.

Both sides are Serve documents: they hold everything that a cluster runs, and also those that an
older release of this program has put there can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from deployments.change import (
    Change,
    ModelChange,
    build_of,
    gateway_changes,
    model_changes,
    restarting,
)
from deployments.manifest import Document, same
from deployments.need import Capacity, Resources, loads, weigh
from deployments.notices import announcements
from deployments.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that applying a config does."""

    fresh: bool
    """Nothing is deployed yet."""
    changes: bool
    code: bool
    """The program itself is another one, so everything restarts."""
    gateway: tuple[Change, ...]
    models: tuple[ModelChange, ...]
    resources: Resources | None
    notices: tuple[str, ...]
    """What clients will notice."""
    refusals: tuple[str, ...]
    """Why it is not applied; empty when it is."""

    @property
    def renewed(self) -> frozenset[str]:
        """Labels of what gets new replicas, as `deployments.status` has them."""
        return frozenset(
            label for label, each in self._labelled() if each.action in ("created", "restarted")
        )

    @property
    def touched(self) -> frozenset[str]:
        """Labels of everything that changes at all."""
        return frozenset(label for label, each in self._labelled() if each.action != "unchanged")

    def _labelled(self) -> Iterator[tuple[str, Change]]:
        for part in self.gateway:
            yield part.name, part
        for model in self.models:
            for version in model.versions:
                yield f"{model.name} {version.name}", version


def make_plan(
    before: Document | None,
    after: Document,
    *,
    traffic: Mapping[str, Traffic],
    capacity: Capacity | None = None,
    targets: Mapping[tuple[str, str], int] | None = None,
    elastic: bool = False,
    problems: Iterable[str] = (),
) -> Plan:
    """Compares two documents.

    Args:
        before: what the cluster runs, or None.
        after: what it shall run.
        traffic: where requests go now, by model.
        capacity: what the cluster has; None leaves resources out.
        targets: replicas that each (application, deployment) wants now.
        elastic: the cluster may get more nodes, so a lack of resources is no refusal.
        problems: further reasons not to apply.
    """
    gateway = gateway_changes(before, after)
    live = {name: its.release for name, its in traffic.items()}
    models = model_changes(before, after, live)
    restarts = restarting(gateway, models)
    resources = None
    refusals = [*problems, *_lost_traffic(models, traffic)]
    if capacity is not None:
        resources = weigh(loads(before, after, targets or {}, restarts), capacity)
        if resources.shortage and not elastic:
            refusals.append(resources.shortage)
    return Plan(
        fresh=before is None,
        changes=before is None or not same(before, after),
        code=before is not None and build_of(before) != build_of(after),
        gateway=gateway,
        models=models,
        resources=resources,
        notices=tuple(announcements(gateway, models)) if before is not None else (),
        refusals=tuple(refusals),
    )


def _lost_traffic(models: Iterable[ModelChange], traffic: Mapping[str, Traffic]) -> list[str]:
    """A model that goes as a whole is meant to be gone; a version of one that stays is not."""
    return [
        f"Version {version.name} of {model.name} would disappear, but {claim}. Move its traffic "
        f"first: serve-app traffic {model.name}, or apply a release without it; then remove it."
        for model in models
        if model.action != "removed" and model.name in traffic
        for version in model.versions
        if version.action == "removed" and (claim := traffic[model.name].claim(version.name))
    ]
