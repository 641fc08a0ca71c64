from __future__ import annotations

from typing import Any

import pytest

from serve_app.domain.release import Release
from serve_app.domain.release_diff import changes

BASE: dict[str, Any] = {
    "candidates": [{"version": "1", "weight": 90}, {"version": "2", "weight": 10}],
    "labels": {"stable": "1", "canary": "2"},
    "fallback": "1",
    "mirror": [{"version": "3", "percent": 20}],
    "outcomes": {"kind": "reward"},
    "strategy": {"type": "canary", "bake_s": 60},
}
RULE = {"match": {"header": {"x-cohort": "beta*"}}, "version": "2"}


def release(**changed: Any) -> Release:
    return Release.model_validate({**BASE, **changed})


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, ()),
        (
            {"candidates": [{"version": "2", "weight": 50}, {"version": "3", "weight": 50}]},
            ("version 1 removed", "version 2: 10% -> 50%", "version 3 added: 50%"),
        ),
        ({"labels": {"stable": "1", "canary": "3"}}, ("label canary: 2 -> 3",)),
        ({"labels": {"stable": "1"}}, ("label canary removed",)),
        ({"labels": {**BASE["labels"], "old": "1"}}, ("label old added: 1",)),
        ({"fallback": None}, ("fallback removed",)),
        ({"fallback": "2"}, ("fallback: 1 -> 2",)),
        (
            {"mirror": [{"version": "3", "percent": 2.5}]},
            ("mirror to version 3: 20% -> 2.5%",),
        ),
        ({"mirror": []}, ("mirror to version 3 removed",)),
        ({"strategy": {"type": "canary", "bake_s": 30}}, ("strategy.bake_s: 60 -> 30",)),
        (
            {"strategy": {"type": "canary", "bake_s": 60, "steps": [1, 10]}},
            ("strategy.steps: 5, 25, 50 -> 1, 10",),
        ),
        (
            {"strategy": {**BASE["strategy"], "guards": {"outcome": {"margin": 0.5}}}},
            ("strategy.guards.outcome added: margin 0.5",),
        ),
        ({"rules": [RULE]}, ("rules: none -> (match header x-cohort beta*, version 2)",)),
        (
            {"sticky": {"by": "header", "name": "x-user"}},
            ("sticky added: by header, name x-user",),
        ),
        (
            {"compare": {"kind": "top_k"}, "fallback": None},
            ("fallback removed", "compare.kind: tolerance -> top_k"),
        ),
    ],
)
def test_what_is_different_in_words(changed: dict[str, Any], words: tuple[str, ...]) -> None:
    assert changes(release(), release(**changed)) == words


def test_the_first_release() -> None:
    assert changes(None, release()) == ("first release", "version 1: 90%", "version 2: 10%")
