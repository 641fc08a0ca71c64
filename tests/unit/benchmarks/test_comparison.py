"""Servers in turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from benchmarks.comparison import Comparison, rotated
from benchmarks.measure import Sample
from benchmarks.settings import Settings


def test_each_turn_begins_with_another_one() -> None:
    orders = [rotated(["a", "b", "c"], turn) for turn in range(4)]
    assert orders == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


def test_one_server_runs_at_a_time_in_an_order_that_rotates() -> None:
    said: list[str] = []
    alive: list[str] = []
    visits: list[tuple[str, int]] = []
    comparison = Comparison("digits", "connections", Settings(repeats=3, tell=said.append))

    @contextmanager
    def server(name: str) -> Iterator[str]:
        alive.append(name)
        yield name.upper()
        alive.remove(name)

    def visit(name: str, running: str, repeat: int) -> None:
        assert alive == [name]
        assert running == name.upper()
        visits.append((name, repeat))
        comparison.add(name, 64, Sample(10.0 * (repeat + 1), 1.0, 2.0, 1, {"ingress": 5.0}))

    comparison.in_turns({name: partial(server, name) for name in "ab"}, visit)
    assert visits == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]
    assert said[0] == "digits, repeat 1 of 3: a"
    result = comparison.result(model="m")
    assert (result["model"], result["axis"], result["repeats"]) == ("m", "connections", 3)
    assert result["servers"]["b"]["64"]["requests_per_s"] == {"median": 20, "min": 10, "max": 30}
    assert result["servers"]["b"]["64"]["errors"] == 3


def test_a_failed_visit_stops_its_server() -> None:
    alive: list[str] = []

    @contextmanager
    def server() -> Iterator[None]:
        alive.append("a")
        try:
            yield
        finally:
            alive.clear()

    def visit(name: str, running: None, repeat: int) -> None:
        raise ValueError(name)

    comparison = Comparison("x", "connections", Settings(tell=lambda line: None))
    with pytest.raises(ValueError, match="a"):
        comparison.in_turns({"a": server}, visit)
    assert alive == []
