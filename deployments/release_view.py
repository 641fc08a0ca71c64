"""Releases, rollouts and shadows as people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.table import Table

from deployments.terminal import WIDTH, out, say
from deployments.wording import ago, clock

Document = Mapping[str, Any]


def show_revision(revision: Document) -> None:
    """The live release of a model in a few lines."""
    release = revision["release"]
    who = f"by {revision['actor']}" + (f": {revision['reason']}" if revision["reason"] else "")
    say(f"{revision['model']}: revision {revision['number']}, {_when(revision)} {who}")
    weights = {each["version"]: each["weight"] for each in release["candidates"] if each["weight"]}
    say(f"  traffic   {_shares(weights)}")
    for key, text in (
        ("sticky", lambda its: f"by {its['by']} {its['name'] or ''}".rstrip()),
        ("labels", lambda its: ", ".join(f"{label} → {version}" for label, version in its.items())),
        ("fallback", str),
        ("mirror", lambda its: ", ".join(f"{e['version']}: {e['percent']:g}%" for e in its)),
        ("rules", lambda its: f"{len(its)} before the weights"),
    ):
        if release[key]:
            say(f"  {key:<9} {text(release[key])}")
    for change in revision["changes"]:
        say(f"  changed   {change}")


def show_history(revisions: Sequence[Document]) -> None:
    """The revisions of a model as a table that fits 100 columns."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("revision", justify="right")
    table.add_column("when", no_wrap=True)
    table.add_column("who", max_width=16, overflow="ellipsis", no_wrap=True)
    table.add_column("what changed, and why", overflow="fold")
    for each in revisions:
        what = "\n".join([*each["changes"], *([each["reason"]] if each["reason"] else [])])
        table.add_row(str(each["number"]), _when(each), each["actor"], what)
    out.print(table, width=WIDTH, markup=False)


def show_rollout(rollout: Document) -> None:
    """One rollout: where it is, why, and what its guards have seen."""
    state, reason = rollout["state"].replace("_", " "), rollout["reason"]
    say(f"{rollout['model']}: rollout {rollout['id']}, {state}: {reason}")
    say(f"  from      {_shares(rollout['origin'])}")
    say(f"  to        {_shares(rollout['target'])}")
    steps = [
        f"[{percent}%]" if index == rollout["step"] else f"{percent}%"
        for index, percent in enumerate(rollout["steps"])
    ]
    say(f"  steps     {' → '.join(steps)}")
    for name, evidence in rollout["evidence"].items():
        if name == "step":
            answered, needed = evidence["answered"], evidence["min_samples"]
            seconds, bake = evidence["seconds"], evidence["bake_s"]
            say(f"  this step {seconds:.0f} of {bake:g} s, {answered:,} of {needed:,} requests")
            continue
        for limit in evidence.get("limits", ()):
            verdict = "BROKEN" if limit["broken"] else "holds"
            say(f"  guard     {name}: {limit['limit']}: {verdict} (chance {limit['chance']:.2g})")


def rollout_line(rollout: Document) -> str:
    """One rollout in one line: where it is, and what it waits for; or how it ended."""
    name, state = f"rollout {rollout['id']}", rollout["state"].replace("_", " ")
    index, steps = rollout["step"], rollout["steps"]
    its = rollout["evidence"].get("step")
    if state != "progressing" or its is None:
        when = ago(datetime.fromisoformat(rollout["changed_at"]))
        return f"{name} {state} ({when}): {rollout['reason']}"
    holds = all(each.get("holds", True) for each in rollout["evidence"].values())
    following = f"{steps[index + 1]}%" if index + 1 < len(steps) else "promoted"
    return (
        f"{name}   step {index + 1} of {len(steps)} ({steps[index]}%), "
        f"{clock(its['seconds'])} of {clock(its['bake_s'])}   "
        f"guards {'hold' if holds else 'BROKEN'} "
        f"({its['answered']:,} of {its['min_samples']:,} requests)   next: {following}"
    )


def show_disagreements(found: Sequence[Document]) -> None:
    """Shadow answers beside those that clients got."""
    if not found:
        say("No shadow has disagreed yet.")
    for each in found:
        say(f"request {each['request_id']}: version {each['version']} and shadow {each['shadow']}")
        for output, text in each["differences"].items():
            say(f"  {output}: {text}")


def _when(document: Document) -> str:
    return ago(datetime.fromisoformat(document["created_at"]))


def _shares(weights: Mapping[str, int]) -> str:
    return ", ".join(f"{version}: {weight}%" for version, weight in weights.items())
