from __future__ import annotations

import pytest

from serve_app.evidence.intervals import anytime_mean, anytime_proportion
from serve_app.evidence.moments import Moments
from serve_app.evidence.verdict import Arm, summarize, verdict


def arm(name: str, successes: int, trials: int = 10_000) -> Arm:
    return Arm(name, trials + 7, Moments.of_counts(successes, trials))


def test_a_summary_has_the_exact_interval_for_zeros_and_ones() -> None:
    summary = summarize(arm("a", 500), binary=True, confidence=0.9)
    assert (summary.exposures, summary.outcomes, summary.mean) == (10_007, 10_000, 0.05)
    assert summary.interval == anytime_proportion(500, 10_000, 0.9)
    real = summarize(arm("a", 500), binary=False)
    assert real.interval == anytime_mean(Moments.of_counts(500, 10_000))


def test_an_arm_that_is_better_wins() -> None:
    found = verdict(arm("1", 500), [arm("2", 700)], binary=True)
    assert (found.conclusion, found.winner) == ("winner", "2")
    (comparison,) = found.comparisons
    assert comparison.finding == "better"
    assert comparison.difference == pytest.approx(0.02)
    assert 0 < comparison.interval.low < 0.02 < comparison.interval.high
    assert [each.name for each in found.arms] == ["1", "2"]
    assert found.sentence == (
        "2 is better than 1. Against the control: 2 +2 points (between +0.831 and +3.17), "
        "with 95 % confidence at every look."
    )


def test_the_control_wins_against_a_worse_arm() -> None:
    found = verdict(arm("1", 700), [arm("2", 500)], binary=True)
    assert (found.winner, found.comparisons[0].finding) == ("1", "worse")
    assert found.sentence.startswith("1 is better than 2. ")


def test_less_can_be_better() -> None:
    found = verdict(arm("1", 700), [arm("2", 500)], binary=True, more_is_better=False)
    assert (found.winner, found.comparisons[0].finding) == ("2", "better")


def test_a_difference_that_may_be_chance_is_none_yet() -> None:
    found = verdict(arm("1", 500), [arm("2", 520)], binary=True)
    assert (found.conclusion, found.winner) == ("no difference yet", None)
    assert found.sentence.startswith("No difference can be shown yet. Against the control: 2 +0.2 ")


def test_too_few_outcomes_are_not_enough_however_different() -> None:
    found = verdict(arm("1", 0, 5000), [arm("2", 99, 99)], binary=True)
    assert (found.conclusion, found.winner) == ("not enough data", None)
    assert found.sentence == (
        "Not enough data: every arm needs 100 outcomes; 1 has 5,000, 2 has 99."
    )
    assert verdict(arm("1", 0, 50), [arm("2", 50, 50)], binary=True, enough=50).winner == "2"


def test_no_outcomes_at_all() -> None:
    found = verdict(arm("1", 0, 0), [arm("2", 0, 0)], binary=False)
    assert found.conclusion == "not enough data"


def test_of_several_better_arms_the_highest_mean_wins_and_the_others_are_named() -> None:
    found = verdict(arm("1", 500), [arm("2", 700), arm("3", 720), arm("4", 500)], binary=True)
    assert found.winner == "3"
    assert [each.finding for each in found.comparisons] == ["better", "better", "open"]
    assert found.sentence.startswith(
        "3 is better than 1, and so is 2; 3 has the highest mean of them, which alone does not "
        "show that it is better than they are. "
    )
    assert found.sentence.endswith("with 95 % confidence for all of them and at every look.")


def test_the_control_must_beat_all_arms_to_win() -> None:
    some = verdict(arm("1", 700), [arm("2", 500), arm("3", 700)], binary=True)
    every = verdict(arm("1", 700), [arm("2", 500), arm("3", 450), arm("4", 400)], binary=True)
    assert (some.winner, every.winner) == (None, "1")
    assert every.sentence.startswith("1 is better than 2, 3 and 4. ")


def test_more_comparisons_are_more_careful() -> None:
    alone = verdict(arm("1", 500), [arm("2", 620)], binary=True)
    many = verdict(arm("1", 500), [arm("2", 620), *(arm(n, 500) for n in "345678")], binary=True)
    assert alone.winner == "2"
    assert many.winner is None
    assert many.comparisons[0].interval.low < alone.comparisons[0].interval.low


def test_rewards_are_told_in_their_own_unit() -> None:
    control, other = Moments.of([1.0, 3.0] * 500), Moments.of([2.0, 4.0] * 500)
    found = verdict(Arm("1", 1000, control), [Arm("2", 1000, other)], binary=False)
    assert found.winner == "2"
    assert "2 +1 (between +0.8" in found.sentence


@pytest.mark.parametrize("others", [[], [arm("1", 5)], [arm("2", 5), arm("2", 6)]])
def test_arms_that_cannot_be_compared_are_refused(others: list[Arm]) -> None:
    with pytest.raises(ValueError, match="two or more arms"):
        verdict(arm("1", 500), others, binary=True)
