from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.rollout.weights import gaining, interpolate, losing

VERSIONS = ("1", "2", "3", "4", "5")


@st.composite
def weights(draw: st.DrawFn) -> dict[str, int]:
    cuts = sorted(draw(st.lists(st.integers(0, 100), min_size=4, max_size=4)))
    ends = [0, *cuts, 100]
    found = {name: ends[i + 1] - ends[i] for i, name in enumerate(VERSIONS)}
    return {name: found[name] for name in draw(st.permutations(VERSIONS))}


@pytest.mark.parametrize(
    ("origin", "target", "percent", "expected"),
    [
        ({"1": 100}, {"1": 0, "2": 100}, 5, {"1": 95, "2": 5}),
        ({"1": 90, "2": 10}, {"1": 50, "2": 50}, 25, {"1": 80, "2": 20}),
        ({"1": 100}, {"1": 98, "2": 2}, 5, {"1": 99, "2": 1}),
        ({"1": 100}, {"2": 34, "3": 33, "4": 33}, 50, {"1": 50, "2": 17, "3": 17, "4": 16}),
        ({"1": 60, "2": 30, "3": 10}, {"3": 70, "2": 30}, 50, {"1": 30, "2": 30, "3": 40}),
    ],
)
def test_weights_on_the_way(
    origin: dict[str, int], target: dict[str, int], percent: int, expected: dict[str, int]
) -> None:
    assert interpolate(origin, target, percent) == expected


@given(weights(), weights())
def test_weights_are_whole_sum_up_and_never_turn_round(
    origin: dict[str, int], target: dict[str, int]
) -> None:
    way = [interpolate(origin, target, percent) for percent in range(101)]
    assert way[0] == origin
    assert way[-1] == target
    for before, after in pairwise(way):
        assert sum(after.values()) == 100
        for name in VERSIONS:
            moved = after[name] - before[name]
            assert moved >= 0 if target[name] >= origin[name] else moved <= 0
            assert moved == 0 or target[name] != origin[name]


@given(weights(), weights())
def test_every_step_moves_traffic_and_is_near_the_exact_share(
    origin: dict[str, int], target: dict[str, int]
) -> None:
    if origin == target:
        return
    for percent in (1, 5, 25, 50, 75):
        found = interpolate(origin, target, percent)
        assert found != origin
        for name in VERSIONS:
            exact = origin[name] + (target[name] - origin[name]) * percent / 100
            assert abs(found[name] - exact) < 2


def test_who_gains_and_who_loses() -> None:
    origin, target = {"1": 60, "2": 30, "3": 10}, {"2": 30, "3": 20, "4": 50}
    assert gaining(origin, target) == ("3", "4")
    assert losing(origin, target) == ("1",)


@pytest.mark.parametrize(
    ("origin", "target", "percent"),
    [({"1": 99}, {"1": 100}, 5), ({"1": 100}, {"2": 101}, 5), ({"1": 100}, {"2": 100}, 101)],
)
def test_what_is_no_way(origin: dict[str, int], target: dict[str, int], percent: int) -> None:
    with pytest.raises(ValueError, match="no way"):
        interpolate(origin, target, percent)
