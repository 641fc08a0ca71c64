"""The choice of a version: pure, deterministic, true to the weights and to readiness."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.routing import choose_version
from serve_app.errors import ModelNotFound, NotReady, VersionNotFound
from serve_app.testing import model_route, route_table


def test_one_candidate_takes_everything() -> None:
    assert choose_version(model_route(), None, "any").key.version == "1"


@given(st.text(), st.integers(0, 100))
def test_the_same_key_always_gets_the_same_version(key: str, weight: int) -> None:
    weights = {"1": weight, "2": 100 - weight}
    first = choose_version(model_route(weights=weights), None, key)
    second = choose_version(model_route(weights=weights), None, key)
    assert first.key == second.key


def test_traffic_follows_the_weights() -> None:
    model = model_route(weights={"1": 90, "2": 10})
    share = Counter(choose_version(model, None, f"id-{n}").key.version for n in range(20_000))
    assert share["2"] / 20_000 == pytest.approx(0.10, abs=0.01)


def test_raising_a_weight_only_moves_keys_towards_it() -> None:
    before = model_route(weights={"1": 90, "2": 10})
    after = model_route(weights={"1": 50, "2": 50})
    for n in range(2_000):
        if choose_version(after, None, str(n)).key.version == "1":
            assert choose_version(before, None, str(n)).key.version == "1"


def test_a_version_that_is_not_ready_gets_nothing() -> None:
    model = model_route(weights={"1": 50, "2": 50}, replicas={"1": 0, "2": 1})
    assert {choose_version(model, None, str(n)).key.version for n in range(100)} == {"2"}


def test_weight_zero_gets_nothing_but_can_be_pinned() -> None:
    model = model_route(weights={"1": 100, "2": 0})
    assert {choose_version(model, None, str(n)).key.version for n in range(100)} == {"1"}
    assert choose_version(model, "2", "x").key.version == "2"


def test_no_ready_version_is_not_ready() -> None:
    model = model_route(replicas={"1": 0})
    assert not model.ready
    with pytest.raises(NotReady):
        choose_version(model, None, "x")
    with pytest.raises(NotReady):
        choose_version(model, "1", "x")


def test_unknown_names() -> None:
    table = route_table()
    with pytest.raises(ModelNotFound, match="'other' is not served"):
        table.model("other")
    with pytest.raises(VersionNotFound, match="no version '9'"):
        table.version("echo", "9")
    with pytest.raises(VersionNotFound):
        choose_version(table.model("echo"), "9", "x")
