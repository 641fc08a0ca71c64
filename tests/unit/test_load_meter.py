from __future__ import annotations

import threading

import pytest

from serve_app import load_meter as module
from serve_app.load_meter import LoadMeter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


@pytest.fixture
def meter(clock: Clock) -> LoadMeter:
    return LoadMeter()


def test_nothing_has_happened(meter: LoadMeter, clock: Clock) -> None:
    clock.now += 1
    assert meter.sample() == (0.0, 0.0, 0.0, 0.0)


def test_two_samples_at_once_divide_by_nothing(meter: LoadMeter) -> None:
    assert meter.sample() == meter.sample() == (0.0, 0.0, 0.0, 0.0)


def test_ongoing_is_an_average_over_time(meter: LoadMeter, clock: Clock) -> None:
    meter.arrived("a", 1, 0)
    clock.now += 1
    meter.arrived("a", 1, 0)
    clock.now += 1
    meter.left(2)
    clock.now += 2
    assert meter.sample().ongoing == pytest.approx(3 / 4)
    clock.now += 1
    assert meter.sample().ongoing == 0


def test_what_goes_on_is_counted_on_in_the_next_sample(meter: LoadMeter, clock: Clock) -> None:
    meter.arrived("a", 1, 0)
    for _ in range(3):
        clock.now += 2
        assert meter.sample().ongoing == pytest.approx(1)


def test_utilisation_and_delay(meter: LoadMeter, clock: Clock) -> None:
    for queued_s, compute_s in ((0.2, 1.0), (0.4, 0.5)):
        meter.begins(queued_s)
        clock.now += compute_s
        meter.ends()
    clock.now += 1.5
    load = meter.sample()
    assert load.utilisation == pytest.approx(0.5)
    assert load.queue_delay_s == pytest.approx(0.3)
    clock.now += 1
    assert meter.sample()[2:] == (0.0, 0.0)


def test_a_long_computation_counts_in_every_sample(meter: LoadMeter, clock: Clock) -> None:
    meter.begins(0.0)
    for _ in range(5):
        clock.now += 1
        assert meter.sample().utilisation == pytest.approx(1.0)
    meter.ends()
    clock.now += 1
    assert meter.sample().utilisation == 0.0


def test_what_waited_unread_counts_in_one_sample_at_most(meter: LoadMeter, clock: Clock) -> None:
    clock.now += 20
    meter.sample()
    clock.now += 1
    meter.arrived("a", 1, 0, waited_s=20.0)
    assert meter.sample().ongoing == pytest.approx(1.0)


def test_backlogs_count_in_batches_of_the_size_that_came(meter: LoadMeter) -> None:
    meter.arrived("a", 8, 24)
    meter.arrived("b", 4, 2)
    assert meter.sample().backlog == pytest.approx(3.5)
    meter.arrived("a", 8, 0)
    assert meter.sample().backlog == pytest.approx(0.5)


def test_a_batch_without_rows(meter: LoadMeter) -> None:
    meter.arrived("a", 0, 3)
    assert meter.sample().backlog == pytest.approx(3)


def test_who_is_silent_has_no_backlog_any_more(meter: LoadMeter, clock: Clock) -> None:
    meter.arrived("a", 1, 5)
    clock.now += 1.5
    meter.arrived("b", 1, 2)
    clock.now += 1
    assert meter.sample().backlog == pytest.approx(2)
    assert set(meter._backlogs) == {"b"}


def test_several_threads(meter: LoadMeter) -> None:
    def work() -> None:
        for _ in range(2000):
            meter.arrived(threading.get_ident(), 1, 0)
            meter.begins(0.0)
            meter.ends()
            meter.left()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter._ongoing == 0
    assert meter._batches == 8000
