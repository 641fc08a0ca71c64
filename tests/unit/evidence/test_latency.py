from __future__ import annotations

import json
from math import isnan

import numpy as np
import pytest

from benchmarks.simulation import latencies, latency_alarms, share_of_alarms, slack, traffic
from serve_app.evidence.histogram import BOUNDS, LatencyHistogram, bound_above, steps_above
from serve_app.evidence.latency import LatencyRatioTest


def histogram(*seconds: float) -> LatencyHistogram:
    found = LatencyHistogram()
    found.add_all(seconds)
    return found


def test_the_threshold_comes_from_the_past_of_the_stable_arm() -> None:
    test = LatencyRatioTest(0.9, 1.5)
    assert isnan(test.threshold_s)
    for _ in range(21):
        # Too short a past: nothing is counted, however slow the candidate.
        assert test.slow.candidate == (0, 0)
        test.update(histogram(9.0), histogram(0.1))
    assert test.threshold_s == BOUNDS[bound_above(0.1)]
    index = bound_above(0.1)
    edge = BOUNDS[index + steps_above(1.5)]
    test.update(histogram(edge, edge * 1.01), histogram(0.1, 0.2))
    assert test.slow.candidate == (1, 2)
    assert test.slow.stable == (1, 2)


def test_a_past_can_be_learnt_before() -> None:
    test = LatencyRatioTest(0.99, 1.5)
    test.learn(histogram(*[0.1] * 1000))
    test.update(histogram(0.3), histogram(0.1))
    assert test.slow.candidate == (1, 1)


def test_the_threshold_follows_the_time_of_day() -> None:
    test = LatencyRatioTest(0.5, 1.5)
    for _ in range(100):
        test.learn(histogram(*[0.1] * 50))
    for _ in range(200):
        test.learn(histogram(*[0.2] * 50))
    assert test.threshold_s == BOUNDS[bound_above(0.2)]


def test_a_threshold_above_all_bounds_counts_nothing() -> None:
    test = LatencyRatioTest(0.5, 2.0)
    test.learn(histogram(*[600.0] * 50))
    test.update(histogram(700.0, 5000.0), histogram(600.0))
    assert test.slow.candidate == (0, 0)


@pytest.mark.parametrize(
    ("factor", "guard"), [(1.0, (0.99, 1.0)), (1.5, (0.99, 1.5)), (1.25, (0.5, 1.25))]
)
def test_looking_every_second_does_not_raise_false_alarms(
    factor: float, guard: tuple[float, float]
) -> None:
    generator = np.random.default_rng(7)
    of = traffic(generator, 50, (0.01, 0.1, 0.5), 100)
    draws = (latencies(0.02, factor), latencies(0.02))
    alarms = latency_alarms(generator, 40, of, draws, guard)
    assert share_of_alarms(alarms) <= 0.05 + slack(40)


def test_a_doubled_p99_is_caught() -> None:
    generator = np.random.default_rng(7)
    of = traffic(generator, 50, (0.1,), 200)
    draws = (latencies(0.02, 2.0), latencies(0.02))
    seconds = latency_alarms(generator, 60, of, draws, (0.99, 1.25))
    assert (seconds > 0).all()
    # Requests of the canary, 5 per second.
    assert np.median(np.cumsum(of.candidate)[seconds - 1]) <= 120
    assert np.quantile(np.cumsum(of.candidate)[seconds - 1], 0.95) <= 300


def test_a_restart_changes_nothing() -> None:
    test = LatencyRatioTest(0.9, 1.2, 0.01)
    for _ in range(30):
        test.update(histogram(0.2), histogram(0.1, 0.1))
    new = LatencyRatioTest.from_state(json.loads(json.dumps(test.state())))
    assert new.state() == test.state()
    for each in (test, new):
        each.update(histogram(0.3), histogram(0.1))
    assert new.p_value == test.p_value
    assert new.rejected


def test_settings_out_of_range_are_refused() -> None:
    for quantile, ratio in ((1.0, 2.0), (0.5, 0.9), (0.5, float("inf"))):
        with pytest.raises(ValueError, match="no test"):
            LatencyRatioTest(quantile, ratio)
