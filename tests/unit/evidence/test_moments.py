from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.evidence.moments import Moments

NUMBERS = st.lists(st.floats(-1e6, 1e6), max_size=30)


@given(NUMBERS, NUMBERS)
def test_parts_add_up_to_the_whole(first: list[float], second: list[float]) -> None:
    added, whole = Moments.of(first) + Moments.of(second), Moments.of([*first, *second])
    assert added.count == whole.count
    assert added.total == pytest.approx(whole.total, abs=1e-6)
    assert added.deviations == pytest.approx(whole.deviations, rel=1e-9, abs=1e-2)


def test_a_small_variance_around_a_large_mean_survives() -> None:
    values = 1e9 + np.random.default_rng(1).normal(0, 1, 1000)
    added = sum((Moments.of(part) for part in np.split(values, 20)), Moments())
    assert added.variance == pytest.approx(values.var(), rel=1e-6)


def test_counts_are_zeros_and_ones() -> None:
    counted, listed = Moments.of_counts(3, 10), Moments.of([1] * 3 + [0] * 7)
    assert (counted.count, counted.mean) == (10, 0.3)
    assert counted.variance == pytest.approx(listed.variance) == pytest.approx(0.21)


def test_nothing_has_no_mean_and_no_variance() -> None:
    for nothing in (Moments(), Moments.of([]), Moments.of_counts(0, 0)):
        assert (nothing.count, nothing.mean, nothing.variance) == (0, 0.0, 0.0)


def test_outcomes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        Moments.of([1.0, float("nan")])
    with pytest.raises(ValueError, match="3 successes in 2 trials"):
        Moments.of_counts(3, 2)


def test_a_state_goes_through_json() -> None:
    moments = Moments.of([0.1, 0.7, 3.0])
    assert Moments.from_state(json.loads(json.dumps(moments.state()))) == moments
