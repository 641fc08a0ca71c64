from __future__ import annotations

import json
from math import exp, inf, log, log1p

import numpy as np
import pytest

from serve_app.evidence.wealth import POINTS, Wealth, log_stake, shifts, step, total


def test_the_stake_is_never_more_than_1_and_what_is_held_back_is_known() -> None:
    placed = sum(exp(log_stake(increment)) for increment in range(10_000))
    assert placed == pytest.approx(1 - 1 / (1 + log1p(10_000)))
    assert exp(log_stake(0)) == pytest.approx(0.41, abs=0.005)


@pytest.mark.parametrize(("increment", "price"), [(300, 9.5), (86_400, 16.4)])
def test_the_price_of_a_late_start_is_as_documented(increment: int, price: float) -> None:
    assert -log_stake(increment) == pytest.approx(price, abs=0.05)


def test_bets_at_fair_odds_that_change_nothing_only_place_the_stake() -> None:
    wealth = np.full(POINTS, -inf)
    for increment in range(50):
        wealth = step(wealth, increment, np.zeros(POINTS))
    assert exp(total(wealth)) == pytest.approx(1 - 1 / (1 + log1p(50)))


def test_the_p_value_follows_the_highest_wealth_and_never_rises() -> None:
    wealth = Wealth()
    assert wealth.p_value == 1
    wealth.grow(np.full(POINTS, log(100.0)))
    best = wealth.p_value
    assert best == pytest.approx(1 / (100 * exp(log_stake(0))))
    wealth.grow(np.full(POINTS, -50.0))
    assert wealth.p_value == best


def test_a_loss_beyond_all_measure_does_not_stop_later_bets() -> None:
    wealth = Wealth()
    wealth.grow(np.full(POINTS, -1e9))
    for _ in range(30):
        wealth.grow(np.full(POINTS, 1.0))
    assert wealth.p_value < 1e-9


def test_a_gain_beyond_all_measure_is_a_p_value_of_0() -> None:
    wealth = Wealth()
    wealth.grow(np.full(POINTS, 1e9))
    assert wealth.p_value == 0


def test_a_state_goes_through_json_with_and_without_data() -> None:
    wealth = Wealth()
    for log_factor in (None, 0.3, -2.0):
        if log_factor is not None:
            wealth.grow(np.linspace(0, log_factor, POINTS))
        again = Wealth.from_state(json.loads(json.dumps(wealth.state(), allow_nan=False)))
        assert again.state() == wealth.state()
    wealth.grow(shifts(2.0))
    again.grow(shifts(2.0))
    assert again.p_value == wealth.p_value


def test_a_state_of_another_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="3 alternatives"):
        Wealth.from_state({"increments": 1, "peak": 0.0, "wealth": [0.0, 0.0, 0.0]})
