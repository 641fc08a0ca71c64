"""What clients will notice of a plan, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from deployments.change import Change, ModelChange
from deployments.difference import Difference, shown

_LISTENERS = {
    "http": "clients",
    "grpc": "gRPC clients",
    "metrics": "scrapers",
}
"""Listener -> who has to follow it."""


def announcements(gateway: Iterable[Change], models: Iterable[ModelChange]) -> Iterator[str]:
    """One line for each thing that somebody who sends requests may notice."""
    for part in gateway:
        if part.name == "ingress":
            yield from _listeners(part.differences)
            if part.action == "restarted":
                yield (
                    "The ingresses are replaced one by one: connections are closed once they are "
                    "idle; no request fails."
                )
    for model in models:
        yield from _model(model)


def _listeners(found: Iterable[Difference]) -> Iterator[str]:
    for each in found:
        group, _, name = each.key.partition(".")
        if group not in _LISTENERS:
            continue
        who = _LISTENERS[group]
        if name == "enabled":
            yield f"The {group} listener is switched {'on' if each.after else 'off'}."
        elif name in ("host", "port"):
            move = f"{each.key} moves from {shown(each.before)} to {shown(each.after)}"
            yield f"{move}: {who} must follow."


def _model(model: ModelChange) -> Iterator[str]:
    if model.action == "removed":
        yield f"Model {model.name} disappears: its requests get 404."
        return
    if model.action == "created":
        return
    signature = [each for each in model.differences if each.key.startswith(("inputs", "outputs"))]
    if signature:
        keys = ", ".join(dict.fromkeys(each.key for each in signature))
        yield f"The signature of {model.name} changes ({keys}): clients must follow."
    for label in model.labels_gone:
        yield f"Label {label} of {model.name} disappears: requests for it get 404."
    for version in model.versions:
        name = f"{model.name} {version.name}"
        if version.action == "removed":
            yield f"Version {version.name} of {model.name} disappears: requests for it get 404."
        elif version.action == "restarted":
            yield f"{name} restarts: its replicas are replaced one by one; no request fails."
            if any(each.key.startswith(("artifact", "predictor")) for each in version.differences):
                yield (
                    f"{name} will answer otherwise than before under the same version; "
                    "better add a new version."
                )
