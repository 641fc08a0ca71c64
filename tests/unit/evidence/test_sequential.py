"""The tests on rates: exactly, by enumeration; and as they are used, by simulation.

Simulated are the same functions that the classes use, for many runs at once
(benchmarks/simulation.py; `python -m benchmarks.false_alarms` runs far more of them).
"""

from __future__ import annotations

import json
from math import comb

import numpy as np
import pytest

from benchmarks.simulation import (
    limit_alarms,
    naive_alarms,
    ratio_alarms,
    share_of_alarms,
    slack,
    traffic,
)
from serve_app.evidence.sequential import Counts, LimitTest, RatioTest, limit_factors, ratio_factors
from serve_app.evidence.wealth import POINTS, Floats

RUNS = 1000


def binomial(trials: int, rate: float) -> Floats:
    """Probabilities of 0, 1, ... events."""
    return np.array(
        [comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(trials + 1)]
    )


def expected_limit_factor(trials: int, rate: float, limit: float) -> Floats:
    events = np.arange(trials + 1.0)[:, None]
    return binomial(trials, rate) @ np.exp(limit_factors(events, float(trials), limit))


def expected_ratio_factor(
    trials: tuple[int, int], rates: tuple[float, float], ratio: float
) -> Floats:
    mine, theirs = (np.arange(count + 1.0) for count in trials)
    factors = ratio_factors(
        (mine[:, None, None], float(trials[0])), (theirs[None, :, None], float(trials[1])), ratio
    )
    chances = np.outer(binomial(trials[0], rates[0]), binomial(trials[1], rates[1]))
    found: Floats = (chances[:, :, None] * np.exp(factors)).sum(axis=(0, 1))
    return found


@pytest.mark.parametrize("limit", [1e-4, 0.01, 0.2, 0.9, 0.9999])
@pytest.mark.parametrize("trials", [1, 7, 40])
def test_a_limit_that_is_kept_lets_no_bet_gain(limit: float, trials: int) -> None:
    for rate in (limit, limit / 2, 0.0):
        assert expected_limit_factor(trials, rate, limit).max() <= 1 + 1e-9
    above = expected_limit_factor(trials, limit + 0.6 * (1 - limit), limit)
    assert above.max() > 1 + 1e-5


@pytest.mark.parametrize("trials", [(1, 1), (1, 30), (12, 5), (30, 30)])
@pytest.mark.parametrize("rate", [0.0, 0.001, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("ratio", [1.0, 1.5, 4.0])
def test_a_ratio_that_is_kept_lets_no_bet_gain(
    trials: tuple[int, int], rate: float, ratio: float
) -> None:
    stable = rate / ratio  # so that the candidate's is one too
    assert expected_ratio_factor(trials, (rate, stable), ratio).max() <= 1 + 1e-12
    assert expected_ratio_factor(trials, (rate / 2, stable), ratio).max() <= 1 + 1e-12
    if rate == 0.2:
        assert expected_ratio_factor(trials, (0.9, stable), ratio).max() > 1.01


def test_rates_that_change_within_an_increment_let_no_bet_gain() -> None:
    # Half of the candidate's trials at 0.4 and half at 0, those of stable all at 0.2.
    both = np.convolve(binomial(10, 0.4), binomial(10, 0.0))
    mine, theirs = np.arange(21.0)[:, None, None], np.arange(21.0)[None, :, None]
    chances = np.outer(both, binomial(20, 0.2))[:, :, None]
    assert (chances * np.exp(ratio_factors((mine, 20.0), (theirs, 20.0), 1.0))).sum(
        (0, 1)
    ).max() <= 1


@pytest.mark.parametrize("arms", [(Counts(3, 5), Counts(0, 0)), (Counts(0, 0), Counts(3, 5))])
def test_an_increment_of_one_arm_alone_says_nothing(arms: tuple[Counts, Counts]) -> None:
    assert not ratio_factors(*arms, ratio=1.5).any()
    test = RatioTest(1.5)
    test.update(*arms)
    assert test.state()["increments"] == 0
    assert (test.candidate, test.stable) == arms


RATIO_CASES = [
    # rate of stable, ratio, shares of the candidate
    (0.001, 1.0, (0.01,)),
    (0.01, 1.5, (0.5,)),
    (0.01, 1.0, (0.01, 0.1, 0.5)),
    (0.2, 1.5, (0.1,)),
]


@pytest.mark.parametrize(("rate", "ratio", "shares"), RATIO_CASES)
def test_looking_every_second_does_not_raise_false_alarms_on_ratios(
    rate: float, ratio: float, shares: tuple[float, ...]
) -> None:
    looks = 500
    generator = np.random.default_rng(7)
    of = traffic(generator, 50, shares, looks)
    rates = (np.full(looks, rate * ratio), np.full(looks, rate))
    alarms = share_of_alarms(ratio_alarms(generator, RUNS, of, rates, ratio))
    assert alarms <= 0.05 + slack(RUNS)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_where_nothing_or_everything_is_an_event_there_is_no_alarm(rate: float) -> None:
    generator = np.random.default_rng(7)
    of, rates = traffic(generator, 50, (0.01, 0.5), 500), (np.full(500, rate),) * 2
    assert not ratio_alarms(generator, 10, of, rates, 1.0).any()


@pytest.mark.parametrize("limit", [0.001, 0.2])
def test_looking_every_second_does_not_raise_false_alarms_on_limits(limit: float) -> None:
    generator = np.random.default_rng(7)
    trials = traffic(generator, 50, (0.1,), 500).candidate
    alarms = limit_alarms(generator, RUNS, trials, np.full(500, limit), limit)
    assert share_of_alarms(alarms) <= 0.05 + slack(RUNS)


def test_the_simulation_can_see_a_test_that_is_fooled() -> None:
    generator = np.random.default_rng(7)
    of, rates = traffic(generator, 50, (0.5,), 1000), (np.full(1000, 0.2),) * 2
    assert share_of_alarms(naive_alarms(generator, RUNS, of, rates, 1.0)) > 0.3


def test_a_broken_canary_is_caught_within_seconds() -> None:
    # 20 % errors against 0.1 %, 50 requests/s, 10 % of them to the canary.
    generator = np.random.default_rng(7)
    of = traffic(generator, 50, (0.1,), 60)
    rates = (np.full(60, 0.2), np.full(60, 0.001))
    seconds = ratio_alarms(generator, RUNS, of, rates, 1.2)
    assert (seconds > 0).all()
    assert np.median(seconds) <= 4
    assert np.quantile(seconds, 0.95) <= 9


def test_a_canary_that_breaks_late_is_caught_nearly_as_soon() -> None:
    generator = np.random.default_rng(7)
    of = traffic(generator, 50, (0.1,), 360)
    errors = np.where(np.arange(360) < 300, 0.001, 0.2)
    seconds = ratio_alarms(generator, 300, of, (errors, np.full(360, 0.001)), 1.2)
    late = seconds[seconds > 300] - 300
    assert len(late) > 0.95 * 300
    assert np.quantile(late, 0.95) <= 15


def test_the_classes_add_up_what_is_simulated() -> None:
    generator = np.random.default_rng(3)
    of = traffic(generator, 50, (0.1,), 30)
    events = (generator.binomial(of.candidate, 0.6), generator.binomial(of.stable, 0.2))
    test, limit = RatioTest(1.2), LimitTest(0.25)
    for look, (mine, theirs) in enumerate(zip(*events, strict=True)):
        test.update(Counts(mine, of.candidate[look]), Counts(theirs, of.stable[look]))
        limit.update(mine, of.candidate[look])
    assert test.candidate == (events[0].sum(), of.candidate.sum())
    assert test.stable == (events[1].sum(), of.stable.sum())
    assert limit.seen == test.candidate
    assert 0 < test.p_value < 1


def test_a_rejection_stays() -> None:
    test = LimitTest(0.01)
    assert test.update(10, 20)
    assert test.update(0, 10**6)
    assert test.rejected


def test_a_limit_of_0_allows_no_event() -> None:
    test = LimitTest(0.0)
    assert not test.update(0, 10**9)
    assert LimitTest(0.0).update(1, 1)


def test_a_thousand_million_trials_are_no_trouble() -> None:
    limit, ratio, many = LimitTest(0.01), RatioTest(), 10**9
    assert not limit.update(many // 100, many)
    assert limit.update(many // 50, many)
    assert not ratio.update(Counts(many, many), Counts(many, many))
    assert ratio.update(Counts(many, many), Counts(many // 2, many))
    for test in (limit, ratio):
        assert test.p_value == 0
        json.dumps(test.state(), allow_nan=False)


def test_alpha_is_the_border() -> None:
    strict, loose = LimitTest(0.1, alpha=1e-6), LimitTest(0.1, alpha=0.1)
    for test in (strict, loose):
        test.update(8, 15)
    assert strict.p_value == loose.p_value
    assert (strict.rejected, loose.rejected) == (False, True)


def test_a_restart_changes_nothing() -> None:
    limit, ratio = LimitTest(0.02, 0.01), RatioTest(1.5, 0.01)
    for events in (0, 2, 1):
        limit.update(events, 10)
        ratio.update(Counts(events, 10), Counts(1, 90))
    new_limit = LimitTest.from_state(json.loads(json.dumps(limit.state())))
    new_ratio = RatioTest.from_state(json.loads(json.dumps(ratio.state())))
    assert (new_limit.state(), new_ratio.state()) == (limit.state(), ratio.state())
    for test in (limit, new_limit):
        test.update(1, 5)
    for other in (ratio, new_ratio):
        other.update(Counts(3, 10), Counts(0, 90))
    assert new_limit.p_value == limit.p_value
    assert new_ratio.p_value == ratio.p_value


@pytest.mark.parametrize("arms", [(Counts(2, 1), Counts(0, 1)), (Counts(0, 1), Counts(-1, 1))])
def test_counts_that_cannot_be_are_refused(arms: tuple[Counts, Counts]) -> None:
    with pytest.raises(ValueError, match="events in 1 trials"):
        RatioTest().update(*arms)
    with pytest.raises(ValueError, match="events in"):
        LimitTest(0.1).update(5, 4)


def test_settings_out_of_range_are_refused() -> None:
    for limit in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="limit"):
            LimitTest(limit)
    for ratio in (0.9, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="ratio"):
            RatioTest(ratio)
    for alpha in (0.0, 1.0):
        with pytest.raises(ValueError, match="alpha"):
            RatioTest(1.0, alpha)


def test_grids_have_one_bet_per_alternative() -> None:
    assert limit_factors(1, 1, 0.5).shape == ratio_factors((1, 1), (0, 1), 1).shape == (POINTS,)


def test_outages_that_hit_both_arms_are_not_blamed_on_the_candidate() -> None:
    # Every 50th second half of all requests fail; meanwhile the candidate's share grows.
    generator = np.random.default_rng(7)
    of = traffic(generator, 50, (0.01, 0.1, 0.5), 500)
    rates = (np.where(np.arange(500) % 50 == 49, 0.5, 0.001),) * 2
    assert share_of_alarms(ratio_alarms(generator, 500, of, rates, 1.0)) <= 0.05 + slack(500)
    assert share_of_alarms(naive_alarms(generator, 500, of, rates, 1.0)) > 0.2


@pytest.mark.parametrize(("share", "errors"), [(1, 2), (10, 3), (50, 8)])
def test_so_few_errors_are_enough_where_stable_has_none(share: int, errors: int) -> None:
    test, needed = RatioTest(1.2), 0
    while not test.rejected:
        needed += 1
        for happened in (0, 0, 0, 0, 0, 1):
            test.update(Counts(happened, share), Counts(0, 100 - share))
    assert needed == errors
