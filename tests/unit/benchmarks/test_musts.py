"""The promises, exactly at their limits and beyond."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.musts import MUSTS, evaluate
from tests.unit.benchmarks.results import results


def failed(measured: dict[str, Any]) -> list[str]:
    return [verdict.text for verdict in evaluate(measured) if verdict.passed is False]


def test_figures_at_the_limit_keep_every_promise() -> None:
    verdicts = evaluate(results())
    assert [verdict.measured for verdict in verdicts] == [
        *(0.7, 0.9, 1.3, 130, 45, 0.175),
        *(1.15, 0.5, 3, 0.9, 1.05, 5, 1, 30, 5, 1, 10),
        *(0.9, 0.9, 0.9, 1.5, 15),
    ]
    assert all(verdict.passed for verdict in verdicts)
    assert len(verdicts) == len(MUSTS)


def test_only_scenarios_that_were_run_are_judged() -> None:
    assert evaluate({}) == []
    assert len(evaluate({"startup": results()["startup"]})) == 1


def test_what_a_run_left_out_is_neither_kept_nor_broken() -> None:
    measured = results()
    for by_point in measured["digits"]["servers"].values():
        del by_point["64"]
    verdicts = [verdict for verdict in evaluate(measured) if "at 64" in verdict.text]
    of_digits = [verdict for verdict in verdicts if verdict.text.startswith("digits")]
    assert [(verdict.measured, verdict.passed) for verdict in of_digits] == [(None, None)] * 3
    assert failed(measured) == []


def figure(
    scenario: str, server: str, point: str, name: str, value: float
) -> Callable[[Any], None]:
    def change(measured: Any) -> None:
        measured[scenario]["servers"][server][point][name]["median"] = value

    return change


def steady(*path: str, value: float) -> Callable[[Any], None]:
    def change(measured: Any) -> None:
        found = measured["steady"]
        for key in path[:-1]:
            found = found[key]
        found[path[-1]] = value

    return change


def start(measured: Any) -> None:
    measured["startup"]["first_answer_s"]["first"]["median"] = 30.1


def second_replica(measured: Any) -> None:
    measured["scaling"]["seconds"]["second_replica"]["median"] = 11.1


def replacement(measured: Any) -> None:
    measured["neighbours"]["events"]["replace"]["p99_ms"]["median"] = 6.1


def slow_rollback(measured: Any) -> None:
    measured["rollback"]["seconds"]["5"]["max"] = 15.1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (figure("digits", "serve-app", "1", "p50_ms", 0.71), "digits: median latency"),
        (figure("digits", "bare-uvicorn", "16", "requests_per_s", 9001), "at 16 connections"),
        (figure("digits", "bare-uvicorn", "64", "requests_per_s", 9001), "against one bare"),
        (figure("digits", "serve-app", "64", "cpu_us", 130.1), "CPU per request at 64"),
        (figure("digits", "ray-serve-defaults", "64", "requests_per_s", 261), "Ray Serve's"),
        (figure("digits", "ray-serve-defaults", "1", "p50_ms", 2.79), "Ray Serve's"),
        (figure("protocols", "serve-app, binary", "64", "requests_per_s", 11_499), "OIP binary"),
        (figure("protocols", "bare-grpc-echo", "64", "requests_per_s", 4001), "gRPC calls/s"),
        (figure("large", "serve-app", "602112", "cpu_us", 1501), "602,112 bytes"),
        (figure("minilm", "serve-app", "skewed", "requests_per_s", 188), "sentences/s"),
        (steady("memory", "ingress", "end_mib", value=215.1), "memory at the end"),
        (steady("memory", "replica digits@2", "end_mib", value=320.1), "memory at the end"),
        (steady("p99_ms", value=5.01), "p99 against the median"),
        (steady("capacity_p50_ms", value=0.49), "median latency at 80%"),
        (start, "first answer"),
        (second_replica, "new one serves"),
        (figure("split", "100 / 0", "16", "requests_per_s", 8999), "16 connections, 100 / 0"),
        (figure("split", "100 / 0", "64", "requests_per_s", 8999), "64 connections, 100 / 0"),
        (figure("split", "50 / 50, 8 rows", "64", "requests_per_s", 7199), "50 / 50, 8 rows"),
        (replacement, "loaded or replaced"),
        (slow_rollback, "bad canary"),
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
    measured["protocols"]["servers"]["serve-app, JSON"]["64"]["errors"] = 1
    assert len(failed(measured)) == 4
    measured["minilm"]["servers"]["serve-app"]["skewed"]["errors"] = 1
    assert len(failed(measured)) == 5
    measured["steady"]["errors"] = 1
    assert len(failed(measured)) == 8
    measured["split"]["servers"]["100 / 0"]["16"]["errors"] = 1
    assert len(failed(measured)) == 9
    measured["neighbours"]["errors"] = 1
    assert len(failed(measured)) == 10
    measured["rollback"]["errors"] = 1
    assert len(failed(measured)) == 11


def test_errors_of_the_other_servers_are_not_ours() -> None:
    measured = results()
    measured["digits"]["servers"]["ray-serve-defaults"]["64"]["errors"] = 7
    measured["protocols"]["servers"]["bare-grpc-echo"]["64"]["errors"] = 7
    measured["rollback"]["failed"]["5"] = 70  # of the broken version
    assert failed(measured) == []
