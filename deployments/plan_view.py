"""A plan on the screen: colour on a terminal, plain lines in a pipe, JSON for machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from deployments.change import Change, ModelChange
from deployments.difference import Difference
from deployments.need import Resources, each_replica
from deployments.plan import Plan
from deployments.terminal import WIDTH, out, say

_SIGNS = {
    "created": ("+", "green"),
    "removed": ("-", "red"),
    "restarted": ("~", "yellow"),
    "changed": ("~", "cyan"),
    "unchanged": ("=", "dim"),
}
SHOWN_DIFFERENCES = 6
_INDENT = 19
"""Columns of sign and name."""


def show(plan: Plan) -> None:
    """Prints a plan; nothing but a line if it changes nothing."""
    if not plan.changes:
        say("No changes: the cluster runs this configuration.")
    else:
        if plan.fresh:
            say("Nothing is deployed yet.")
        if plan.code:
            say("The program is another one: everything restarts.")
        _show_gateway(plan)
        for model in plan.models:
            _show_model(model)
        if plan.resources is not None:
            say(_needs(plan.resources))
            for finding in (plan.resources.shortage, plan.resources.warning):
                if finding and finding not in plan.refusals:
                    out.print(finding, style="yellow", markup=False)
        for notice in plan.notices:
            say(notice)
        if not plan.notices and not plan.fresh:
            say("No client will notice.")
    for refusal in plan.refusals:
        out.print(f"Refused: {refusal}", style="red", markup=False)


def summary(plan: Plan) -> str:
    """A plan in one line, for lists."""
    if plan.fresh:
        return f"first: {', '.join(model.name for model in plan.models)}"
    parts = ["code"] if plan.code else []
    parts += [f"{each.name} {each.action}" for each in plan.gateway if _told(each, plan)]
    for model in plan.models:
        if model.action in ("created", "removed"):
            parts.append(f"{model.name} {model.action}")
            continue
        parts += [
            f"{model.name} {each.name} {each.action}"
            for each in model.versions
            if _told(each, plan)
        ]
        parts += [f"{model.name} {text}" for text in model.release]
        parts += [f"{model.name}.{each.key}" for each in model.differences]
    return "; ".join(parts) or "nothing"


def as_json(plan: Plan) -> dict[str, Any]:
    """A plan for machines: the fields of `deployments.plan.Plan`."""
    found = asdict(plan)
    for change in [*found["gateway"], *(v for m in found["models"] for v in m["versions"])]:
        change["differences"] = _differences(change["differences"])
        del change["settings"]
    for model in found["models"]:
        model["differences"] = _differences(model["differences"])
    if plan.resources is not None:
        for name in ("now", "after", "peak", "total", "free"):
            found["resources"][name] = getattr(plan.resources, name)._asdict()
    return found


def _differences(found: list[tuple[str, Any, Any]]) -> list[dict[str, Any]]:
    return [Difference(*each)._asdict() for each in found]


def _told(change: Change, plan: Plan) -> bool:
    """Whether a change is news: with other code it is none that everything restarts."""
    return bool(change.differences) or change.action not in (
        ("unchanged", "restarted") if plan.code else ("unchanged",)
    )


def _show_gateway(plan: Plan) -> None:
    """Ingress and ModelRouter restart for the same reasons, which stand once."""
    if all(each.action == "unchanged" for each in plan.gateway):
        return
    say("gateway")
    told: tuple[Difference, ...] = ()
    for part in plan.gateway:
        rest = tuple(each for each in part.differences if each not in told)
        _line(part, part.name, list(_words(part, rest)))
        told += rest


def _show_model(model: ModelChange) -> None:
    if model.action == "unchanged":
        out.print(f"{model.name:<16} unchanged", style="dim", markup=False)
        return
    say(model.name)
    for version in model.versions:
        _line(version, f"version {version.name}", list(_words(version, version.differences)))
    for text in model.release:
        out.print(f"  ~ {text}", style="cyan", markup=False)
    for each in model.differences:
        out.print(f"  ~ {each}", style="cyan", markup=False)


def _line(change: Change, name: str, words: list[str]) -> None:
    sign, style = _SIGNS[change.action]
    first, *more = words
    out.print(f"  {sign} {name:<14} {first}", style=style, markup=False)
    for word in more:
        out.print(f"{'':<{_INDENT}}{word}", style=style, markup=False)


def _words(change: Change, found: tuple[Difference, ...]) -> Iterator[str]:
    if change.action == "created":
        yield "   ".join(["starts", *_description(change.settings)])
    elif change.action == "removed":
        yield "stops, after its last request"
    elif change.action == "unchanged":
        yield "unchanged"
    else:
        verb = "restarts" if change.action == "restarted" else "changes in place"
        shown = [str(each) for each in found[:SHOWN_DIFFERENCES]]
        if len(found) > SHOWN_DIFFERENCES:
            shown.append(f"and {len(found) - SHOWN_DIFFERENCES} more")
        first = f"{verb}: {shown[0]}" if shown else verb
        if len(first) <= WIDTH - _INDENT:
            yield first
            yield from shown[1:]
        else:
            yield f"{verb}:"
            yield from shown


def _description(settings: Mapping[str, Any]) -> Iterator[str]:
    """What a new version is, as far as its configuration says."""
    if not settings:
        return
    artifact = settings.get("artifact")
    yield str(settings.get("platform", ""))
    if artifact:
        digest = artifact.get("sha256")
        yield artifact["uri"].rsplit("/", 1)[-1] + (f" (sha256 {digest[:4]}…)" if digest else "")
    replicas, resources = settings.get("replicas"), settings.get("resources")
    if replicas and resources:
        low, high = replicas["min"], replicas["max"]
        count = f"{low}" if low == high else f"{low} to {high}"
        each = each_replica({"ray_actor_options": resources})
        yield f"{count} replica{'' if count == '1' else 's'}, {each} each"


def _needs(resources: Resources) -> str:
    kinds = resources.peak
    needs = [f"Needs {resources.after}"]
    if resources.after != resources.now:
        needs.append(f"now {resources.now}")
    if resources.peak not in (resources.after, resources.now):
        needs.append(f"in between up to {resources.peak}")
    has = f"the cluster has {resources.total.of_kind(kinds)}, {resources.free.of_kind(kinds)} free"
    return f"{', '.join(needs)}; {has}."
