from __future__ import annotations

import json

import numpy as np
import pytest

from serve_app.domain.release import Bandit, Candidate, Outcomes, Release
from serve_app.evidence import Moments
from serve_app.rollout import BanditClock

LABELS = Outcomes(kind="label", output="logits")
BETTER = {"1": Moments.of_counts(800, 1000), "2": Moments.of_counts(900, 1000)}


def release(
    *weights: int, outcomes: Outcomes = LABELS, floor: int = 5, ceiling: int = 95
) -> Release:
    candidates = (
        Candidate(version=str(index + 1), weight=weight) for index, weight in enumerate(weights)
    )
    bandit = Bandit(floor=floor, ceiling=ceiling, every_s=60)
    return Release(candidates=tuple(candidates), outcomes=outcomes, bandit=bandit)


def test_it_draws_when_it_is_time() -> None:
    clock = BanditClock(1, 100.0)
    assert clock.draw(159.0, release(50, 50), BETTER) is None
    assert clock.due(160.0, release(50, 50))
    draw = clock.draw(160.0, release(50, 50), BETTER)
    assert draw is not None
    assert draw.weights == {"1": 5, "2": 95}
    assert draw.reason == (
        "probability of being the best: version 1 with 0 % (1,000 outcomes), "
        "version 2 with 100 % (1,000 outcomes)"
    )
    assert clock.draw(219.0, release(50, 50), BETTER) is None
    assert clock.draw(220.0, release(50, 50), BETTER) is not None


def test_noise_is_not_worth_a_revision() -> None:
    assert BanditClock(1, 0.0).draw(60.0, release(5, 95), BETTER) is None
    assert BanditClock(1, 0.0).draw(60.0, release(7, 93), BETTER) is None
    assert BanditClock(1, 0.0).draw(60.0, release(8, 92), BETTER) is not None


def test_without_outcomes_everybody_gets_the_same() -> None:
    draw = BanditClock(1, 0.0).draw(60.0, release(90, 10), {})
    assert draw is not None
    assert draw.weights["1"] == pytest.approx(50, abs=2)


@pytest.mark.parametrize(("better", "winner"), [("higher", "2"), ("lower", "1")])
def test_numbers_that_are_better_high_or_low(better: str, winner: str) -> None:
    outcomes = Outcomes.model_validate({"kind": "number", "better": better})
    found = {"1": Moments.of([1.0, 2.0] * 100), "2": Moments.of([2.0, 3.0] * 100)}
    draw = BanditClock(1, 0.0).draw(60.0, release(50, 50, outcomes=outcomes), found)
    assert draw is not None
    assert draw.weights[winner] == 95


def test_a_candidate_that_was_switched_off_stays_off() -> None:
    found = {**BETTER, "3": Moments.of_counts(1000, 1000)}
    draw = BanditClock(1, 0.0).draw(60.0, release(50, 50, 0), found)
    assert draw is not None
    assert draw.weights == {"1": 5, "2": 95, "3": 0}
    assert BanditClock(1, 0.0).draw(60.0, release(100, 0), BETTER) is None


def test_bounds_that_so_many_candidates_cannot_keep_are_widened() -> None:
    draw = BanditClock(1, 0.0).draw(60.0, release(34, 33, 33, floor=50, ceiling=50), BETTER)
    assert draw is None
    draw = BanditClock(1, 0.0).draw(60.0, release(60, 20, 20, floor=50, ceiling=50), BETTER)
    assert draw is not None
    assert min(draw.weights.values()) == 33


def test_nothing_to_do_without_a_bandit() -> None:
    plain = release(50, 50).model_copy(update={"bandit": None})
    clock = BanditClock(1, 0.0)
    assert not clock.due(1e9, plain)
    assert clock.draw(1e9, plain, BETTER) is None


def test_a_restart_draws_what_would_have_been_drawn() -> None:
    found = {"1": Moments.of_counts(8, 10), "2": Moments.of_counts(9, 10)}
    clock = BanditClock(7, 0.0)
    clock.draw(60.0, release(50, 50), found)
    again = BanditClock.from_state(json.loads(json.dumps(clock.state())))
    assert again.draw(119.0, release(90, 10), found) is None
    one, other = (each.draw(120.0, release(90, 10), found) for each in (clock, again))
    assert one == other
    assert one is not None


def test_traffic_goes_to_the_better_version_in_the_end() -> None:
    generator = np.random.default_rng(3)
    live, clock, found = release(34, 33, 33), BanditClock(3, 0.0), dict.fromkeys("123", Moments())
    for minute in range(1, 60):
        for version, rate in (("1", 0.90), ("2", 0.93), ("3", 0.80)):
            count = live.weights[version] * 10
            found[version] += Moments.of_counts(int(generator.binomial(count, rate)), count)
        draw = clock.draw(60.0 * minute, live, found)
        live = live.with_weights(draw.weights) if draw is not None else live
        assert min(live.weights.values()) >= 5
    assert live.weights["2"] >= 85
