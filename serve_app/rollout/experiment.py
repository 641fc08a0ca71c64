"""The report of an A/B test: a document for people and programs, from which pictures are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

from serve_app.domain.release import Outcomes, Release
from serve_app.evidence import Arm, Interval, summarize, verdict

CONFIDENCE = 0.95


def control_of(release: Release) -> str:
    """The version that others are held against.

    That is the one labelled `stable`, else the fallback, else the first candidate with traffic.
    """
    arms = [each.version for each in release.candidates if each.weight] or [""]
    for version in (release.labels.get("stable"), release.fallback):
        if version in release.weights:
            return str(version)
    return arms[0]


def report(
    model: str, outcomes: Outcomes, arms: Sequence[Arm], control: str, *, at: float
) -> dict[str, Any]:
    """What is known about the arms, ready for JSON. It may be asked for at any time.

    The intervals hold at all times together, and the verdict is only ever wrong with 5 %
    probability, so whoever looks each minute and acts on the first winner is not fooled.

    Args:
        model: whose arms.
        outcomes: what is reported, and what is better.
        arms: exposures and outcomes of each; for labels the share of rows that were right.
        control: the arm that the others are held against.
        at: seconds since the epoch.

    Raises:
        ValueError: there is no such arm, or two have the same name.
    """
    binary = outcomes.kind == "label"
    known = {arm.name: arm for arm in arms}
    if control not in known or len(known) < len(arms):
        raise ValueError(f"no comparison of {[arm.name for arm in arms]} with {control!r}")
    ordered = [known[control], *(arm for arm in arms if arm.name != control)]
    called = [replace(arm, name=f"version {arm.name}") for arm in ordered]
    document: dict[str, Any] = {
        "model": model,
        "at": at,
        "kind": outcomes.kind,
        "better": "higher" if binary else outcomes.better,
        "measure": "share right" if binary else f"mean {outcomes.kind}",
        "control": control,
        "confidence": CONFIDENCE,
        "conclusion": "not enough data",
        "winner": None,
        "verdict": f"Nothing to compare: only version {control} has had traffic.",
        "arms": [],
        "comparisons": [],
    }
    summaries = [summarize(arm, binary=binary, confidence=CONFIDENCE) for arm in ordered]
    if len(ordered) > 1:
        found = verdict(
            called[0],
            called[1:],
            binary=binary,
            more_is_better=document["better"] == "higher",
            confidence=CONFIDENCE,
        )
        document["conclusion"] = found.conclusion
        document["winner"] = found.winner.removeprefix("version ") if found.winner else None
        document["verdict"] = found.sentence[0].upper() + found.sentence[1:]
        document["comparisons"] = [
            {
                "version": each.name.removeprefix("version "),
                "difference": each.difference,
                **_ends(each.interval),
                "finding": each.finding,
            }
            for each in found.comparisons
        ]
    document["arms"] = [
        {
            "version": each.name,
            "exposures": each.exposures,
            "outcomes": each.outcomes,
            "mean": each.mean if each.outcomes else None,
            **_ends(each.interval),
        }
        for each in summaries
    ]
    return document


def _ends(interval: Interval) -> Mapping[str, float | None]:
    """JSON knows no infinity: an end that is open is null."""
    low, high = (end if isfinite(end) else None for end in interval)
    return {"low": low, "high": high}
