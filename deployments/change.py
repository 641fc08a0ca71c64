"""What becomes of each part when one Serve document follows another. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from deployments.arguments import ReplicaArguments
from deployments.difference import Difference, differences
from deployments.manifest import Document
from deployments.naming import GATEWAY, INGRESS, REPLICA, ROUTER, application_name
from deployments.traffic import release_changes
from serve_app.domain.inference import VersionKey

Action = Literal["created", "removed", "restarted", "changed", "unchanged"]

RESTARTING = ("ray_actor_options", "placement_group_bundles", "placement_group_strategy")
"""Options of a deployment that replace its replicas; all others change in place."""
IN_FORCE = "the release is in force already"
_IN_ARGUMENTS = frozenset(ReplicaArguments.model_fields)
_OPTION_NAMES = {
    (INGRESS, "num_replicas"): "ingress.replicas",
    (ROUTER, "ray_actor_options.num_cpus"): "cluster.router_num_cpus",
}


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of the ingress, of ModelRouter or of one version."""

    name: str
    """`ingress`, `router` or the version."""
    action: Action
    differences: tuple[Difference, ...] = ()
    """What it is restarted or changed for; empty if that is the code."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The configuration of a version that is created."""


@dataclass(frozen=True, slots=True)
class ModelChange:
    """What becomes of one model."""

    name: str
    action: Literal["created", "removed", "changed", "unchanged"]
    versions: tuple[Change, ...]
    release: tuple[str, ...] = ()
    """What is different in the release, in words."""
    differences: tuple[Difference, ...] = ()
    """What else clients see of the model."""
    labels_gone: tuple[str, ...] = ()
    """Labels that can be called now, and then not any more."""


def gateway_changes(before: Document | None, after: Document) -> tuple[Change, ...]:
    """What becomes of the ingress and of ModelRouter."""
    return _part(before, after, INGRESS), _part(before, after, ROUTER)


def model_changes(
    before: Document | None, after: Document, live: Mapping[str, Mapping[str, Any]]
) -> tuple[ModelChange, ...]:
    """What becomes of each model, those that go last.

    Args:
        before: what runs.
        after: what shall run.
        live: the releases in force, as far as they are known; they may have been changed since.
    """
    old, new = settings_of(before), settings_of(after)
    return tuple(
        _model(before, after, name, old.get(name), new.get(name), live.get(name))
        for name in dict.fromkeys([*new, *old])
    )


def _model(
    before: Document | None,
    after: Document,
    name: str,
    old: Mapping[str, Any] | None,
    new: Mapping[str, Any] | None,
    live: Mapping[str, Any] | None,
) -> ModelChange:
    were, become = ((each or {}).get("versions", {}) for each in (old, new))
    versions = tuple(
        _version(before, after, VersionKey(name, version), were.get(version), become.get(version))
        for version in dict.fromkeys([*become, *were])
    )
    if old is None or new is None:
        return ModelChange(name, "created" if old is None else "removed", versions)
    former, wanted = (each.get("release") or {} for each in (old, new))
    release = tuple(release_changes(former, wanted))
    if release and live:  # only one that is desired anew is taken over, but then from here
        former = live
        release = tuple(release_changes(former, wanted)) or (IN_FORCE,)
    gone = (former.get("labels") or {}).keys() - (wanted.get("labels") or {}).keys()
    apart = frozenset({"versions", "release"})
    found = tuple(differences(_without(old, apart), _without(new, apart)))
    calm = not (release or found or any(each.action != "unchanged" for each in versions))
    return ModelChange(
        name,
        "unchanged" if calm else "changed",
        versions,
        release,
        found,
        tuple(sorted(gone)) if release else (),
    )


def _version(
    before: Document | None,
    after: Document,
    key: VersionKey,
    old: Mapping[str, Any] | None,
    new: Mapping[str, Any] | None,
) -> Change:
    name = application_name(key)
    was, becomes = application(before, name), application(after, name)
    if becomes is None:
        return Change(key.version, "removed")
    if was is None:
        return Change(key.version, "created", settings=new or {})
    arguments = list(differences(was.get("args"), becomes.get("args")))
    in_place = list(differences(_without(old, _IN_ARGUMENTS), _without(new, _IN_ARGUMENTS)))
    return _changed(key.version, REPLICA, was, becomes, arguments, in_place)


def _part(before: Document | None, after: Document, deployment: str) -> Change:
    """What becomes of the ingress or of ModelRouter."""
    name = {INGRESS: "ingress", ROUTER: "router"}[deployment]
    was, becomes = application(before, GATEWAY), application(after, GATEWAY)
    if becomes is None or was is None:
        return Change(name, "created" if was is None else "removed")
    arguments = list(differences(was.get("args"), becomes.get("args")))
    return _changed(name, deployment, was, becomes, arguments, [])


def _changed(
    name: str,
    deployment: str,
    was: Mapping[str, Any],
    becomes: Mapping[str, Any],
    arguments: list[Difference],
    in_place: list[Difference],
) -> Change:
    """The change of a deployment that is there before and after.

    Args:
        name: as the plan calls it.
        deployment: as Serve calls it.
        was: its application now.
        becomes: its application then.
        arguments: what differs in the application's arguments, for which all of it restarts.
        in_place: what differs in its configuration otherwise.
    """
    old, new = (
        _without(_deployment(each, deployment), frozenset({"user_config"}))
        for each in (was, becomes)
    )
    options = [
        each._replace(key=_OPTION_NAMES.get((deployment, each.key), each.key))
        for each in differences(old, new)
    ]
    restarts = any(was.get(key) != becomes.get(key) for key in ("import_path", "runtime_env"))
    restarts |= bool(arguments) or any(old.get(key) != new.get(key) for key in RESTARTING)
    # Most options follow from the configuration, which is what a person knows.
    explained = [*arguments, *in_place]
    own = [each for each in options if not explained or each.key in _OPTION_NAMES.values()]
    found = tuple([*explained, *own])
    if restarts:
        return Change(name, "restarted", found)
    return Change(name, "changed" if found else "unchanged", found)


def settings_of(document: Document | None) -> Mapping[str, dict[str, Any]]:
    """The models in a document, as ModelRouter has them."""
    gateway = application(document, GATEWAY)
    options = _deployment(gateway, ROUTER) if gateway is not None else {}
    models: Mapping[str, dict[str, Any]] = (options.get("user_config") or {}).get("models") or {}
    return models


def restarting(
    gateway: Iterable[Change], models: Iterable[ModelChange]
) -> frozenset[tuple[str, str]]:
    """The deployments, as Serve calls them, whose replicas are replaced."""
    parts = {"ingress": INGRESS, "router": ROUTER}
    found = {(GATEWAY, parts[each.name]) for each in gateway if each.action == "restarted"}
    found |= {
        (application_name(VersionKey(model.name, each.name)), REPLICA)
        for model in models
        for each in model.versions
        if each.action == "restarted"
    }
    return frozenset(found)


def build_of(document: Document) -> Any:
    """The code that a document runs."""
    gateway = application(document, GATEWAY) or {}
    return ((gateway.get("runtime_env") or {}).get("env_vars") or {}).get("SERVE_APP_BUILD")


def application(document: Document | None, name: str) -> Mapping[str, Any] | None:
    """The application with this name in a document."""
    applications = document["applications"] if document is not None else []
    return next((each for each in applications if each["name"] == name), None)


def _deployment(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    options = (each for each in found["deployments"] if each["name"] == name)
    return next(options, {})


def _without(settings: Mapping[str, Any] | None, names: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in (settings or {}).items() if key not in names}
