from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.simulation import (
    Draw,
    mean_alarms,
    rewards,
    scores,
    share_of_alarms,
    slack,
    traffic,
)
from serve_app.evidence.margin import ENOUGH, MeanTest
from serve_app.evidence.moments import Moments

CASES: list[tuple[Draw, Draw, float, tuple[float, ...]]] = [
    (scores(0.0), scores(0.0), 0.0, (0.01, 0.1, 0.5)),
    (scores(-0.1), scores(0.0), 0.1, (0.5,)),
    (rewards(0.01, sigma=1.0), rewards(0.01, sigma=1.0), 0.0, (0.05,)),
]


@pytest.mark.parametrize(("candidate", "stable", "margin", "shares"), CASES)
def test_looking_every_second_does_not_raise_false_alarms(
    candidate: Draw, stable: Draw, margin: float, shares: tuple[float, ...]
) -> None:
    generator = np.random.default_rng(7)
    of = traffic(generator, 100, shares, 150)
    alarms = mean_alarms(generator, 60, of, (candidate, stable), margin)
    assert share_of_alarms(alarms) <= 0.05 + slack(60)


def test_a_candidate_that_is_worse_is_found() -> None:
    generator = np.random.default_rng(7)
    of = traffic(generator, 50, (0.5,), 150)
    alarms = mean_alarms(generator, 50, of, (scores(-0.3), scores(0.0)), 0.05)
    assert (alarms > 0).all()


def test_a_candidate_that_earns_nothing_is_found_although_it_never_varies() -> None:
    test = MeanTest()
    for _ in range(30):
        test.update(Moments.of_counts(0, 20), Moments.of_counts(4, 40))
    assert test.rejected


def test_a_better_candidate_is_left_alone() -> None:
    test = MeanTest()
    assert not test.update(Moments.of_counts(500, 1000), Moments.of_counts(100, 1000))


def test_too_few_outcomes_say_nothing() -> None:
    test, few = MeanTest(), ENOUGH - 1
    assert not test.update(Moments.of(np.linspace(0, 1, few)), Moments.of([100, 101] * 500))
    assert test.update(Moments.of([0.5]), Moments())


def test_a_rejection_stays_and_survives_a_restart() -> None:
    test = MeanTest(0.1, 0.01)
    test.update(Moments.of([0.0, 1.0] * 200), Moments.of([10.0, 11.0] * 200))
    test = MeanTest.from_state(json.loads(json.dumps(test.state())))
    assert test.rejected
    assert (test.margin, test.alpha, test.candidate.count) == (0.1, 0.01, 400)
    assert test.update(Moments.of([1000.0, 1001.0] * 1000), Moments())


def test_settings_out_of_range_are_refused() -> None:
    for margin, alpha in ((-0.1, 0.05), (float("nan"), 0.05), (0.0, 0.0), (0.0, 1.0)):
        with pytest.raises(ValueError, match="no test"):
            MeanTest(margin, alpha)
