from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.evidence.bandit import best_probabilities, percents
from serve_app.evidence.moments import Moments


def probabilities(*arms: Moments, binary: bool = True) -> list[float]:
    found = best_probabilities(arms, np.random.default_rng(1), binary=binary)
    return [float(probability) for probability in found]


def test_binary_posteriors_are_beta() -> None:
    # P(Beta(3, 1) > Beta(1, 1)) = E of the first = 3/4.
    assert probabilities(Moments.of_counts(2, 2), Moments()) == pytest.approx(
        [0.75, 0.25], abs=0.01
    )


def test_equal_arms_are_equally_good() -> None:
    for binary in (True, False):
        found = probabilities(*[Moments.of_counts(50, 1000)] * 4, binary=binary)
        assert found == pytest.approx([0.25] * 4, abs=0.015)


def test_a_clear_winner_gets_nearly_all() -> None:
    for binary in (True, False):
        found = probabilities(
            Moments.of_counts(300, 1000), Moments.of_counts(400, 1000), binary=binary
        )
        assert found[1] > 0.999


def test_an_arm_without_rewards_yet_keeps_a_chance() -> None:
    good, bad = Moments.of([1.0, 2.0] * 200), Moments.of([0.0, 1.0] * 200)
    found = probabilities(good, bad, Moments(), binary=False)
    assert found[1] < 0.001
    assert 0.1 < found[2] < 0.5


def test_normal_posteriors_narrow_with_the_outcomes() -> None:
    few = probabilities(Moments.of([0, 1] * 5), Moments.of([0.1, 1.1] * 5), binary=False)
    many = probabilities(Moments.of([0, 1] * 500), Moments.of([0.1, 1.1] * 500), binary=False)
    assert 0.5 < few[1] < 0.8 < 0.99 < many[1]


def test_rewards_that_never_vary_share_the_win() -> None:
    assert probabilities(*[Moments.of([2.0] * 10)] * 2, binary=False) == [0.5, 0.5]


def test_chance_comes_from_the_generator_only() -> None:
    arms = [Moments.of_counts(5, 20), Moments.of_counts(7, 20)]
    assert probabilities(*arms) == probabilities(*arms)


def test_no_arms_are_refused() -> None:
    with pytest.raises(ValueError, match="no arms"):
        probabilities()


@pytest.mark.parametrize(
    ("shares", "bounds", "expected"),
    [
        ([1.0], (0, 100), [100]),
        ([0.5, 0.5], (0, 100), [50, 50]),
        ([1, 1, 1], (0, 100), [34, 33, 33]),
        ([2, 2, 2, 1], (0, 100), [29, 29, 28, 14]),
        ([1.0, 0.0], (0, 100), [100, 0]),
        ([1.0, 0.0], (5, 100), [95, 5]),
        ([1.0, 0.0, 0.0], (0, 90), [90, 5, 5]),
        ([0.98, 0.01, 0.01], (5, 100), [90, 5, 5]),
        ([0.6, 0.3, 0.1], (0, 50), [50, 38, 12]),
        ([0.996, 0.004], (1, 100), [99, 1]),
        ([0.3, 0.7], (50, 50), [50, 50]),
    ],
)
def test_percents(shares: list[float], bounds: tuple[int, int], expected: list[int]) -> None:
    assert percents(shares, *bounds) == expected


@given(
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12).filter(
        lambda shares: sum(shares) > 1e-3
    ),
    st.integers(0, 8),
    st.integers(0, 100),
)
def test_percents_sum_up_and_keep_their_bounds(shares: list[float], floor: int, cut: int) -> None:
    count = len(shares)
    ceiling = max(100 - cut, -(-100 // count), floor)
    found = percents(shares, floor, ceiling)
    assert sum(found) == 100
    assert all(floor <= percent <= ceiling for percent in found)
    ranked = sorted(range(count), key=lambda index: shares[index])
    assert all(found[low] <= found[high] + 1 for low, high in pairwise(ranked))


@pytest.mark.parametrize(
    ("shares", "bounds"),
    [([], (0, 100)), ([0, 0], (0, 100)), ([-1, 2], (0, 100)), ([1, float("nan")], (0, 100)),
     ([1, 1], (60, 100)), ([1, 1], (0, 40)), ([1, 1], (50, 20)), ([1], (0, 101))],
)  # fmt: skip
def test_percents_that_do_not_exist_are_refused(
    shares: list[float], bounds: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match=r"no shares|cannot sum up"):
        percents(shares, *bounds)
