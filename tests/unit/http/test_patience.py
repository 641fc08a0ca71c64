"""Time limits of a connection, with the time given by the test."""

from __future__ import annotations

from serve_app.http.listener_state import Phase
from serve_app.http.patience import PhaseWatch
from serve_app.listening.patience import ReaderWatch

LIMITS = dict.fromkeys(Phase, 2.0) | {Phase.WORK: float("inf")}


def test_a_phase_lasts_from_the_sweep_that_sees_it_first() -> None:
    watch = PhaseWatch(LIMITS)
    assert not watch.expired(100.0)
    assert not watch.expired(101.9)
    assert watch.expired(102.0)


def test_entering_a_phase_starts_anew_even_the_same_one() -> None:
    watch = PhaseWatch(LIMITS)
    watch.enter(Phase.HEAD)
    assert not watch.expired(0.0)
    watch.enter(Phase.HEAD)
    assert not watch.expired(3.0)
    assert watch.expired(5.0)


def test_our_own_work_has_no_limit_here() -> None:
    watch = PhaseWatch(LIMITS)
    watch.enter(Phase.WORK)
    assert not watch.expired(0.0)
    assert not watch.expired(1e9)


def test_a_reader_that_stands_still() -> None:
    reader = ReaderWatch(2.0)
    assert not reader.expired(0.0, 1000)
    assert not reader.expired(1.0, 900)
    assert reader.expired(2.0, 501)


def test_a_reader_that_takes_half_each_time() -> None:
    reader = ReaderWatch(2.0)
    for now, unsent in enumerate([1000, 500, 250, 125, 60, 30, 15, 7, 3, 1, 0]):
        assert not reader.expired(float(now * 1.9), unsent)


def test_nothing_unsent_is_no_standing_still() -> None:
    reader = ReaderWatch(2.0)
    for now in range(10):
        assert not reader.expired(float(now), 0)
    assert not reader.expired(10.0, 5)
    assert not reader.expired(11.0, 0)
    assert not reader.expired(12.0, 5)
    assert not reader.expired(13.0, 5)
    assert reader.expired(14.0, 5)
