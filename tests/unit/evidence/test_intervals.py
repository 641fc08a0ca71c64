from __future__ import annotations

from math import inf

import numpy as np
import pytest

from benchmarks.simulation import (
    Draw,
    difference_alarms,
    rewards,
    scores,
    share_of_alarms,
    slack,
    traffic,
)
from serve_app.evidence.intervals import (
    TUNED_FOR,
    Interval,
    anytime_difference,
    anytime_mean,
    anytime_proportion,
    anytime_width,
)
from serve_app.evidence.moments import Moments


def test_nothing_is_known_without_outcomes() -> None:
    assert anytime_proportion(0, 0) == (0, 1)
    one = Moments.of([1.0])
    assert anytime_mean(one) == anytime_difference(one, one) == (-inf, inf)


def test_intervals_for_all_looks_are_wider_but_not_by_much() -> None:
    for successes, trials in ((5, 100), (500, 1000), (100, 10_000), (10**5, 10**6)):
        outcomes = Moments.of_counts(successes, trials)
        once = 2 * 1.96 * (outcomes.variance / trials) ** 0.5
        for always in (anytime_proportion(successes, trials), anytime_mean(outcomes)):
            assert 1.5 < width(always) / once < 2.35


def width(interval: Interval) -> float:
    return interval.high - interval.low


def test_the_exact_interval_ends_where_the_mixture_refutes() -> None:
    # 1 of 1: 1/2 / p >= 1 / alpha for p <= alpha / 2. 0 of 1: the mirror image.
    assert anytime_proportion(1, 1) == pytest.approx((0.025, 1.0))
    assert anytime_proportion(0, 1) == pytest.approx((0.0, 0.975))


@pytest.mark.parametrize("rate", [0.01, 0.5])
def test_the_exact_interval_holds_at_all_looks_together(rate: float) -> None:
    generator, runs = np.random.default_rng(7), 80
    missed = 0
    for _ in range(runs):
        successes = np.cumsum(generator.binomial(20, rate, 60)).tolist()
        intervals = (anytime_proportion(n, 20 * (i + 1)) for i, n in enumerate(successes))
        missed += any(not low <= rate <= high for low, high in intervals)
    assert missed / runs <= 0.05 + slack(runs)


def test_the_width_is_near_its_best_where_it_is_tuned() -> None:
    factors = {n: anytime_width(n, 0.05) * n**0.5 for n in (30, 300, TUNED_FOR, 3000, 10**6)}
    assert min(factors, key=factors.__getitem__) == TUNED_FOR
    assert factors[TUNED_FOR] == pytest.approx(3.04, abs=0.01)


CASES: list[tuple[Draw, tuple[float, ...]]] = [
    (scores(0.0), (0.01, 0.1, 0.5)),
    (rewards(0.001), (0.1,)),
    (rewards(0.5), (0.5,)),
    (rewards(0.01, sigma=1.0), (0.05,)),
]


@pytest.mark.parametrize(("draw", "shares"), CASES)
def test_two_equal_arms_are_not_told_apart(draw: Draw, shares: tuple[float, ...]) -> None:
    generator = np.random.default_rng(7)
    of = traffic(generator, 100, shares, 150)
    alarms = difference_alarms(generator, 60, of, (draw, draw))
    assert share_of_alarms(alarms) <= 0.05 + slack(60)


def test_two_unequal_arms_are_told_apart() -> None:
    generator = np.random.default_rng(7)
    of = traffic(generator, 50, (0.5,), 150)
    alarms = difference_alarms(generator, 50, of, (scores(0.2), scores(0.0)))
    assert (alarms > 0).all()


def test_an_arm_that_never_varies_is_not_known_exactly() -> None:
    constant, varied = Moments.of_counts(0, 100), Moments.of_counts(10, 1000)
    low, high = anytime_difference(constant, varied)
    assert low < 0 < high


@pytest.mark.parametrize("confidence", [0.0, 1.0])
def test_a_confidence_that_is_none_is_refused(confidence: float) -> None:
    outcomes = Moments.of_counts(1, 10)
    with pytest.raises(ValueError, match="confidence"):
        anytime_proportion(1, 10, confidence)
    with pytest.raises(ValueError, match="confidence"):
        anytime_mean(outcomes, confidence)
    with pytest.raises(ValueError, match="confidence"):
        anytime_difference(outcomes, outcomes, confidence)
