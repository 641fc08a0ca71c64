"""Releases as values: what one must not say, and which ones are the same."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from pydantic import ValidationError

from serve_app.domain.control import Outcome
from serve_app.domain.release import Release, Sticky

LABELS = {"kind": "label", "output": "logits"}
MIRROR = [{"version": "2", "percent": 10}]


def release(**fields: Any) -> Release:
    return Release.model_validate({"candidates": [{"version": "1", "weight": 100}], **fields})


def guarded(guards: dict[str, Any], **fields: Any) -> Release:
    return release(strategy={"type": "canary", "guards": guards}, **fields)


@pytest.mark.parametrize("name", ["X-User-ID", "x user", "", "x" * 65])
def test_a_header_that_no_request_can_have_sticks_to_nothing(name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        Sticky(by="header", name=name)


def test_names_of_cookies_are_taken_as_they_are() -> None:
    assert Sticky(by="cookie", name="SessionId").name == "SessionId"


@pytest.mark.parametrize(
    ("guards", "words"),
    [
        ({"error_rate": {}}, "give max, ratio or both"),
        ({"latency": [{"quantile": 0.5}]}, "give max_ms, ratio or both"),
        ({"latency": [{"max_ms": 50}, {"ratio": 2}]}, "each quantile may be guarded once"),
        ({"latency": [{"ratio": float("inf")}]}, "finite"),
        ({"outcome": {}}, "a guard on outcomes needs outcomes"),
        ({"disagreement": {"max": 0.1}}, "a guard on disagreement needs a mirror"),
    ],
)
def test_a_guard_that_would_guard_nothing(guards: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        guarded(guards)


def test_guards_with_all_that_they_need() -> None:
    guards = {
        "error_rate": {"max": 0.1},
        "latency": [{"quantile": 0.5, "ratio": 2}, {"max_ms": 50, "ratio": 2}],
        "outcome": {},
        "disagreement": {"max": 0.1},
    }
    found = guarded(guards, outcomes=LABELS, mirror=MIRROR).strategy.guards
    assert [each.quantile for each in found.latency] == [0.5, 0.99]


def test_a_bandit_needs_outcomes() -> None:
    with pytest.raises(ValidationError, match="a bandit needs outcomes"):
        release(bandit={})
    assert release(bandit={}, outcomes=LABELS).bandit is not None


def test_labels_for_no_row_at_all_are_no_outcome() -> None:
    with pytest.raises(ValidationError, match="label"):
        Outcome.model_validate({"request_id": "a", "label": []})
    assert Outcome.model_validate({"request_id": "a", "label": [3]}).label == (3,)


PLAIN: dict[str, Any] = {"candidates": [{"version": "1", "weight": 100}]}


def test_a_field_that_a_later_program_adds_makes_no_other_release() -> None:
    text = json.dumps(PLAIN, sort_keys=True, separators=(",", ":"))
    assert Release.model_validate(PLAIN).digest == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"strategy": {"type": "all_at_once"}, "labels": {}, "fallback": None}, True),
        ({"strategy": {"bake_s": 60}}, True),
        ({"strategy": {"bake_s": 61}}, False),
        ({"labels": {"stable": "1"}}, False),
    ],
)
def test_equal_releases_have_equal_digests(changed: dict[str, Any], same: bool) -> None:
    one, other = (Release.model_validate({**PLAIN, **each}) for each in ({}, changed))
    assert (one.digest == other.digest) is (one == other) is same
