"""Ratios to the reference of the same run, then and now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import regression
from benchmarks.errors import BenchmarkError
from tests.unit.benchmarks.results import results


def scale(measured: Any, scenario: str, server: str, figure: str, factor: float) -> None:
    for of in measured[scenario]["servers"][server].values():
        of[figure]["median"] *= factor


def worse(now: Any, then: Any, tolerance: float = 0.1) -> set[tuple[str, str]]:
    changes = regression.compare(now, then, tolerance)
    return {(change.text, change.figure) for change in changes if change.regressed}


def test_the_same_run_has_not_changed() -> None:
    changes = regression.compare(results(), results())
    assert all(change.relative == 0 and not change.regressed for change in changes)
    # digits 3, protocols 3 x 3, large 1, minilm 2 points; two figures each
    assert len(changes) == 2 * (3 + 9 + 1 + 2)


def test_a_machine_of_half_the_speed_changes_no_ratio() -> None:
    now = results()
    for server in now["digits"]["servers"]:
        scale(now, "digits", server, "requests_per_s", 0.5)
        scale(now, "digits", server, "cpu_us", 2.0)
    assert not worse(now, results())


def test_less_throughput_and_more_cpu_are_regressions() -> None:
    now = results()
    scale(now, "digits", "serve-app", "requests_per_s", 0.89)
    scale(now, "large", "serve-app", "cpu_us", 1.11)
    assert worse(now, results()) == {
        ("digits: serve-app / bare-uvicorn", "requests_per_s"),
        ("large: serve-app / bare-body", "cpu_us"),
    }
    assert not worse(now, results(), tolerance=0.12)


def test_better_is_no_regression() -> None:
    now = results()
    scale(now, "digits", "serve-app", "requests_per_s", 3.0)
    scale(now, "digits", "serve-app", "cpu_us", 0.3)
    changes = regression.compare(now, results())
    assert not any(change.regressed for change in changes)
    assert max(change.relative for change in changes) == pytest.approx(2.0)


def test_a_slower_reference_does_not_hide_in_the_ratio_of_another_scenario() -> None:
    now = results()
    scale(now, "protocols", "bare-grpc-echo", "requests_per_s", 2.0)
    assert worse(now, results()) == {
        ("protocols: serve-app, gRPC / bare-grpc-echo", "requests_per_s")
    }


def test_only_what_both_runs_have_is_compared() -> None:
    now = {"digits": results()["digits"]}
    del now["digits"]["servers"]["serve-app"]["1"]
    changes = regression.compare(now, results())
    assert {change.point for change in changes} == {"16", "64"}


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match="nothing in common"):
        regression.compare({"startup": {}}, results())


@pytest.mark.parametrize("text", [None, "", "no json", "[]"])
def test_a_baseline_that_is_missing_or_damaged_is_an_error(
    tmp_path: Path, text: str | None
) -> None:
    path = tmp_path / "bench.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BenchmarkError, match="no baseline"):
        regression.load(path)


def test_a_baseline_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(results()))
    assert not worse(results(), regression.load(path))
