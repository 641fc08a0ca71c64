"""Which versions take traffic now, and what a change of a release means in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from deployments.difference import differences
from deployments.wording import lasting
from serve_app.domain.control import Standing
from serve_app.domain.release import Guards, Release, Strategy
from serve_app.domain.release_diff import changes

Settings = Mapping[str, Any]
"""One model's configuration as JSON, as ModelRouter has it."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Where the requests of one model go."""

    weights: Mapping[str, int]
    """Version -> percent."""
    ruled: frozenset[str] = field(default_factory=frozenset)
    """Versions that get requests by a rule, whatever the weights say."""
    rollout: frozenset[str] = field(default_factory=frozenset)
    """Versions between which a rollout is moving traffic; empty when none is."""
    release: Mapping[str, Any] = field(default_factory=dict)
    """All of the release that is in force, as JSON; empty when it is not known."""

    def claim(self, version: str) -> str:
        """Why a version cannot go away; empty when it can."""
        if version in self.rollout:
            return "a rollout of it is going on"
        if self.weights.get(version):
            return f"{self.weights[version]} % of the traffic still goes to it"
        return "a rule still sends requests to it" if version in self.ruled else ""


def live_traffic(
    models: Mapping[str, Settings], standings: Mapping[str, Standing] | None = None
) -> Mapping[str, Traffic]:
    """The traffic of each model that runs.

    Args:
        models: as ModelRouter has them; their releases count where nothing better is known.
        standings: what is in force, by model.
    """
    found = {name: _traffic(model.get("release") or {}) for name, model in models.items()}
    for name, its in (standings or {}).items():
        if name in found:
            found[name] = _standing(its)
    return found


def _standing(its: Standing) -> Traffic:
    found = _traffic(its.revision.release.model_dump(mode="json"))
    if its.rollout is None:
        return found
    moved = {**its.rollout.origin, **its.rollout.target}
    touched = (its.rollout.origin, its.rollout.target)
    return replace(found, rollout=frozenset(v for v in moved if any(w.get(v) for w in touched)))


def _traffic(release: Mapping[str, Any]) -> Traffic:
    labels = release.get("labels") or {}
    ruled = {rule["version"] for rule in release.get("rules") or []}
    return Traffic(
        weights=weights(release),
        ruled=frozenset(labels.get(name, name) for name in ruled),
        release=release,
    )


def weights(release: Mapping[str, Any]) -> dict[str, int]:
    """Version -> percent, of the candidates that have any."""
    return {
        each["version"]: each["weight"]
        for each in release.get("candidates") or []
        if each["weight"]
    }


def release_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """What is different between two releases, in words."""
    old, new = weights(before), weights(after)
    if old != new:
        yield f"traffic {shares(old)} → {shares(new)}"
    try:
        former, wanted = Release.model_validate(before), Release.model_validate(after)
    except ValidationError:  # written by another release of this program
        yield from map(str, differences(_rest(before), _rest(after)))
    else:
        told: dict[str, Any] = {"candidates": wanted.candidates}
        if old != new and wanted.strategy.plan:
            yield _way(wanted.strategy)
            told["strategy"] = wanted.strategy
        yield from changes(former.model_copy(update=told), wanted)


def _way(strategy: Strategy) -> str:
    """How traffic gets there, and what may stop it."""
    steps = " → ".join(f"{percent}%" for percent in strategy.plan)
    guards = ", ".join(_guards(strategy.guards)) or "none"
    each = lasting(strategy.bake_s)
    return f"by {strategy.type}: {steps} of the way, {each} each; guards: {guards}"


def _guards(guards: Guards) -> Iterator[str]:
    if (errors := guards.error_rate) is not None:
        most = None if errors.max is None else _percent(errors.max)
        yield from _limits("error rate", most, errors.ratio)
    for latency in guards.latency:
        most = None if latency.max_ms is None else f"{latency.max_ms:g} ms"
        yield from _limits(f"p{100 * latency.quantile:g}", most, latency.ratio)
    if guards.disagreement is not None:
        yield f"disagreement ≤ {_percent(guards.disagreement.max)}"
    if (outcome := guards.outcome) is not None:
        yield "outcomes no worse" + (f" by more than {outcome.margin:g}" * bool(outcome.margin))


def _limits(what: str, most: str | None, ratio: float | None) -> Iterator[str]:
    if most is not None:
        yield f"{what} ≤ {most}"
    if ratio is not None:
        yield f"{what} ≤ {ratio:g} times the former"


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _rest(release: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in release.items() if key != "candidates"}


def shares(found: Mapping[str, int]) -> str:
    """Weights in words."""
    return ", ".join(f"{version}: {share}%" for version, share in found.items()) or "none"
