"""The documents that a cluster gets on its way from one config to another. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from pydantic import ValidationError

from deployments.change import settings_of
from deployments.manifest import Document
from serve_app.domain.release import Release, faults


def stages(before: Document | None, after: Document, *, renews: bool) -> list[Document]:
    """The documents to be applied one after the other; the last one is `after`.

    Where replicas are new, the releases stay as they were at first: traffic only moves once what is
    new has become ready and stayed healthy, and nobody notices if it does not.

    Args:
        before: what the cluster runs, or None.
        after: what it shall run.
        renews: whether there will be new replicas.
    """
    held = _held_back(settings_of(before), settings_of(after)) if renews else {}
    if not held:
        return [after]
    first = deepcopy(after)
    models = settings_of(first)
    for name, release in held.items():
        models[name]["release"] = release
    return [first, after]


def _held_back(
    old: Mapping[str, dict[str, Any]], new: Mapping[str, dict[str, Any]]
) -> Mapping[str, Any]:
    """The former releases that are to become others, where the new versions can have them."""
    return {
        name: former
        for name, model in new.items()
        if (former := old.get(name, {}).get("release")) is not None
        and former != model["release"]
        and _possible(former, model)
    }


def _possible(release: Any, model: Mapping[str, Any]) -> bool:
    try:
        found = Release.model_validate(release)
    except ValidationError:  # written by another release of this program
        return False
    outputs = [output["name"] for output in model["outputs"]]
    return not any(faults(found, model["versions"], outputs))
