from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from serve_app.rollout.intake import MOST, WINDOW, Intake


def again(intake: Intake) -> Intake:
    return Intake.from_state(json.loads(json.dumps(intake.state())))


def test_each_report_of_each_ingress_counts_once() -> None:
    intake = Intake()
    assert [intake.take("a", n) for n in (1, 2, 2, 1, 3)] == [True, True, False, False, True]
    assert intake.take("b", 2)


def test_the_first_report_may_have_any_number() -> None:
    intake = Intake()
    assert intake.take("a", 1_000_000)
    assert intake.take("a", 999_990)
    assert not intake.take("a", 999_990)


def test_what_is_older_than_the_window_counts_as_seen() -> None:
    intake = Intake()
    intake.take("a", 100)
    assert not intake.take("a", 100 - WINDOW)
    assert intake.take("a", 100 - WINDOW + 1)
    assert intake.take("a", 100 + 5 * WINDOW)
    assert not intake.take("a", 101)


def test_the_ingresses_that_were_silent_for_longest_are_forgotten() -> None:
    intake = Intake()
    for number in range(MOST):
        intake.take(f"i{number}", 1)
    assert not intake.take("i0", 1)
    intake.take("another", 1)
    assert len(intake.state()) == MOST
    assert not intake.take("i0", 1)
    assert intake.take("i1", 1)


@given(st.lists(st.integers(0, WINDOW - 1), min_size=1), st.integers(0, 50))
def test_any_order_and_a_restart_in_between(numbers: list[int], restart: int) -> None:
    intake, taken = Intake(), []
    for index, number in enumerate(numbers):
        if index == restart:
            intake = again(intake)
        if intake.take("a", number):
            taken.append(number)
    assert sorted(taken) == sorted(set(numbers))
