from __future__ import annotations

import json
from math import inf, isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.evidence.histogram import (
    BOUNDS,
    PER_DOUBLING,
    LatencyHistogram,
    bound_above,
    steps_above,
)


@pytest.mark.parametrize("ratio", [1.1, 1.2, 1.25, 1.5, 2.0])
def test_common_ratios_end_just_below_a_bound(ratio: float) -> None:
    reached = BOUNDS[steps_above(ratio)] / BOUNDS[0]
    assert ratio * (1 - 1e-9) <= reached <= ratio * 1.007


@given(st.floats(1.0, 100.0))
def test_a_ratio_is_never_rounded_down(ratio: float) -> None:
    reached = 2 ** (steps_above(ratio) / PER_DOUBLING)
    assert ratio * (1 - 1e-9) <= reached <= ratio * 1.0207


@given(st.lists(st.floats(0.0, 3000.0), max_size=50))
def test_one_by_one_and_all_at_once_are_the_same(seconds: list[float]) -> None:
    one, other = LatencyHistogram(), LatencyHistogram()
    for each in seconds:
        one.add(each)
    other.add_all(seconds)
    assert (one.counts == other.counts).all()
    assert one.total == len(seconds)


def test_a_bound_belongs_to_the_bucket_below() -> None:
    histogram = LatencyHistogram()
    index = bound_above(0.1)
    histogram.add(BOUNDS[index])
    assert (histogram.above(index), histogram.above(index - 1)) == (0, 1)
    histogram.add(np.nextafter(BOUNDS[index], inf))
    assert histogram.above(index) == 1


def test_quantiles_are_the_next_bound() -> None:
    seconds = np.random.default_rng(1).lognormal(-4, 1, 5000)
    histogram = LatencyHistogram()
    histogram.add_all(seconds)
    for q in (0.01, 0.5, 0.9, 0.99, 1.0):
        exact = np.quantile(seconds, q, method="inverted_cdf")
        assert exact <= histogram.quantile(q) <= exact * 1.0207


def test_quantiles_at_the_ends() -> None:
    histogram = LatencyHistogram()
    assert isnan(histogram.quantile(0.5))
    assert histogram.quantile_index(0.5) == len(BOUNDS)
    histogram.add(5000.0)
    assert histogram.quantile(0.5) == inf
    histogram.add_all([0.0] * 9)
    assert histogram.quantile(0.5) == BOUNDS[0]


def test_merged_and_faded() -> None:
    one, other = LatencyHistogram(), LatencyHistogram()
    one.add_all([0.1, 0.2])
    other.add_all([0.2, 0.3])
    one.merge(other)
    assert one.total == 4
    assert one.above(bound_above(0.1)) == 3
    one.fade(0.25)
    assert one.total == 1


def test_a_state_goes_through_json() -> None:
    histogram = LatencyHistogram()
    histogram.add_all([0.1, 0.1, 0.2, 5000.0])
    histogram.fade(0.9)
    again = LatencyHistogram.from_state(json.loads(json.dumps(histogram.state())))
    assert (again.counts == histogram.counts).all()
    assert not LatencyHistogram.from_state(LatencyHistogram().state()).total


def test_a_state_with_other_buckets_is_refused() -> None:
    with pytest.raises(ValueError, match="buckets"):
        LatencyHistogram.from_state({"buckets": [len(BOUNDS) + 1], "counts": [1]})
