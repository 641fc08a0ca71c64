from __future__ import annotations

import itertools

import pytest

from serve_app.predictors import grouping
from serve_app.predictors.grouping import (
    GROUPS,
    MAX_POSITIONS,
    UNPADDED,
    WHOLE,
    Way,
    fastest,
    passes,
    synthetic_rows,
)

LENGTHS = [4, 50, 4, 50, 4, 50, 3, 4, 50]


def batch(*lengths: int) -> list[list[int]]:
    return [[0] * length for length in lengths]


def test_groups_are_of_similar_length() -> None:
    groups = list(passes(batch(*LENGTHS), 4))
    assert [[LENGTHS[row] for row in group] for group in groups] == [
        [3, 4, 4, 4],
        [4, 50, 50, 50],
        [50],
    ]


@pytest.mark.parametrize("way", [UNPADDED, WHOLE, 1, 4, 8, 100])
def test_every_row_is_computed_once(way: Way) -> None:
    rows = batch(*LENGTHS * 30)
    numbers = list(itertools.chain.from_iterable(passes(rows, way)))
    assert sorted(numbers) == list(range(len(rows)))


def test_a_whole_batch_keeps_its_order() -> None:
    assert list(passes(batch(3, 1, 2), WHOLE)) == [[0, 1, 2]]


def test_unpadded_passes_are_bounded() -> None:
    rows = batch(MAX_POSITIONS + 1, 1, MAX_POSITIONS - 1, 1, 1)
    assert list(passes(rows, UNPADDED)) == [[0], [1, 2], [3, 4]]
    assert list(passes(batch(MAX_POSITIONS), UNPADDED)) == [[0]]


def test_synthetic_rows_are_the_same_each_time_and_within_bounds() -> None:
    rows = synthetic_rows(100, 50)
    assert rows == synthetic_rows(100, 50)
    lengths = sorted(map(len, rows))
    assert lengths[0] >= 3
    assert lengths[-1] == 50
    assert 15 <= lengths[len(lengths) // 2] <= 35
    assert {token for row in rows for token in row} <= set(range(100))


class Clock:
    """Moves by what a way costs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, costs: dict[Way, float]) -> None:
        self.now = 0.0
        self.costs = costs
        self.tried: list[Way] = []
        monkeypatch.setattr(grouping, "perf_counter", self.read)

    def read(self) -> float:
        return self.now

    def compute(self, way: Way) -> None:
        self.tried.append(way)
        self.now += self.costs[way]


def test_the_fastest_way_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, dict.fromkeys(GROUPS, 0.02) | {UNPADDED: 0.03, 4: 0.01})
    assert fastest((UNPADDED, *GROUPS), clock.compute, clock.read) == 4
    assert clock.tried == [UNPADDED, *GROUPS], "the slow ones once"


def test_what_is_close_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, {8: 0.0100, 4: 0.0101, 16: 0.5})
    assert fastest((8, 4, 16), clock.compute, clock.read) == 8
    assert clock.tried.count(16) == 1
    assert clock.tried.count(4) > 1


def test_a_slow_network_is_not_measured_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, dict.fromkeys(GROUPS, 1.0))
    assert fastest(GROUPS, clock.compute, clock.read) in GROUPS[:2]
    assert clock.now == 2.0
    patient = Clock(monkeypatch, dict.fromkeys(GROUPS, 100.0))
    assert fastest(GROUPS, patient.compute, patient.read) == GROUPS[0]
    assert patient.now == 100.0
