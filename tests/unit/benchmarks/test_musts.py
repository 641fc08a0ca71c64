"""The promises, exactly at their limits and beyond."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.musts import evaluate
from tests.unit.benchmarks.results import results


def failed(measured: dict[str, Any]) -> list[str]:
    return [verdict.text for verdict in evaluate(measured) if not verdict.passed]


def test_figures_at_the_limit_keep_every_promise() -> None:
    verdicts = evaluate(results())
    assert [verdict.measured for verdict in verdicts] == [25, 0.25, 0.6, 250, 1.5, 30]
    assert all(verdict.passed for verdict in verdicts)


def test_only_what_was_measured_is_judged() -> None:
    assert evaluate({}) == []
    assert len(evaluate({"startup": results()["startup"]})) == 1


def set_figure(server: str, count: str, figure: str, value: float) -> Callable[[Any], None]:
    def change(measured: Any) -> None:
        measured["digits"]["servers"][server][count][figure]["median"] = value

    return change


def set_ratio(measured: Any) -> None:
    measured["minilm"]["lengths"]["uniform"]["ratio"] = 1.499


def set_start(measured: Any) -> None:
    measured["startup"]["first_answer_s"]["first"]["median"] = 30.1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (set_figure("ray-serve-defaults", "64", "requests_per_s", 241), "requests/s at 64"),
        (set_figure("serve-app", "1", "p50_ms", 1.01), "median latency"),
        (set_figure("bare-uvicorn", "64", "requests_per_s", 10_001), "one bare uvicorn"),
        (set_figure("serve-app", "64", "cpu_us", 250.1), "CPU per request"),
        (set_ratio, "sentences/s"),
        (set_start, "first answer"),
    ],
)
def test_a_figure_beyond_the_limit_fails_its_promise_alone(
    change: Callable[[Any], None], text: str
) -> None:
    measured = results()
    change(measured)
    found = failed(measured)
    assert len(found) == 1
    assert text in found[0]


def test_a_fast_server_that_fails_requests_keeps_no_promise() -> None:
    measured = results()
    measured["digits"]["servers"]["serve-app"]["64"]["errors"] = 1
    assert len(failed(measured)) == 3
    measured["minilm"]["lengths"]["skewed"]["modes"]["grouped"]["errors"] = 1
    assert len(failed(measured)) == 4


def test_errors_of_the_other_servers_are_not_ours() -> None:
    measured = results()
    measured["digits"]["servers"]["ray-serve-defaults"]["64"]["errors"] = 7
    assert failed(measured) == []
