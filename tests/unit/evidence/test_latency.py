from __future__ import annotations

import json
from math import isnan

import numpy as np
import pytest

from benchmarks.simulation import latencies, latency_alarms, share_of_alarms, slack, traffic
from serve_app.evidence.histogram import BOUNDS, LatencyHistogram, bound_above, steps_above
from serve_app.evidence.latency import LatencyLimitTest, LatencyRatioTest


def histogram(*seconds: float) -> LatencyHistogram:
    found = LatencyHistogram()
    found.add_all(seconds)
    return found


def test_a_limit_counts_what_is_above_it() -> None:
    test = LatencyLimitTest(0.99, 0.2)
    test.update(histogram(0.1, 0.2, 0.3, 5000.0))
    assert test.slow.seen == (2, 4)
    assert test.slow.limit == pytest.approx(0.01)


def test_a_limit_is_rounded_up() -> None:
    test = LatencyLimitTest(0.99, 0.2)
    test.update(histogram(BOUNDS[bound_above(0.2)]))
    assert test.slow.seen == (0, 1)


def test_a_p99_above_its_limit_is_found() -> None:
    test, generator = LatencyLimitTest(0.99, 0.2), np.random.default_rng(1)
    draw = latencies(0.1)  # p99 at 0.32 s, 8 % above 0.2 s
    for _ in range(100):
        test.update(histogram(*draw(generator, 5)))
    assert test.rejected
    assert test.slow.seen.trials == 500


def test_a_p99_below_its_limit_is_left_alone() -> None:
    test, generator = LatencyLimitTest(0.99, 0.33), np.random.default_rng(1)
    draw = latencies(0.1)
    for _ in range(1000):
        test.update(histogram(*draw(generator, 5)))
    assert not test.rejected


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
    limit, ratio = LatencyLimitTest(0.9, 0.15, 0.01), LatencyRatioTest(0.9, 1.2, 0.01)
    for _ in range(30):
        limit.update(histogram(0.1, 0.2))
        ratio.update(histogram(0.2), histogram(0.1, 0.1))
    new_limit = LatencyLimitTest.from_state(json.loads(json.dumps(limit.state())))
    new_ratio = LatencyRatioTest.from_state(json.loads(json.dumps(ratio.state())))
    assert (new_limit.state(), new_ratio.state()) == (limit.state(), ratio.state())
    for one in (limit, new_limit):
        one.update(histogram(0.2))
    for other in (ratio, new_ratio):
        other.update(histogram(0.3), histogram(0.1))
    assert (new_limit.p_value, new_ratio.p_value) == (limit.p_value, ratio.p_value)
    assert new_limit.rejected
    assert new_ratio.rejected


def test_settings_out_of_range_are_refused() -> None:
    for quantile, limit_s in ((1.0, 0.1), (0.0, 0.1), (0.5, 0.0), (0.5, 5000.0)):
        with pytest.raises(ValueError, match="no test"):
            LatencyLimitTest(quantile, limit_s)
    for quantile, ratio in ((1.0, 2.0), (0.5, 0.9), (0.5, float("inf"))):
        with pytest.raises(ValueError, match="no test"):
            LatencyRatioTest(quantile, ratio)
