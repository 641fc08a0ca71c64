"""Tables, JSON and plot."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import plots, regression, report, store
from benchmarks.__main__ import WIDTH
from benchmarks.musts import MUSTS, evaluate
from tests.unit.benchmarks.results import results


def screen() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=WIDTH), text


def test_every_scenario_has_its_table() -> None:
    console, text = screen()
    measured = results()
    report.show(measured, evaluate(measured), console)
    shown = text.getvalue()
    for scenario in measured:
        assert f"{scenario}: " in shown
    assert "11,700 (11,700-11,700)" in shown
    assert "602,112" in shown
    assert "CPU µs per request, by process" in shown
    assert "Resident memory in MiB, by process" in shown
    assert "replica digits@2          300.0       300.0" in shown
    assert "30.0 (29.0-31.0)" in shown
    assert "22.5 (22.5-22.5)" in shown
    assert shown.count("pass") == len(MUSTS)
    assert "FAIL" not in shown
    assert "…" not in shown


def test_what_was_not_measured_is_said() -> None:
    console, text = screen()
    measured = {"digits": results()["digits"]}
    del measured["digits"]["servers"]["ray-serve-defaults"]
    report.show(measured, evaluate(measured), console)
    assert text.getvalue().count("not measured") == 2


def test_changes_are_shown_with_their_direction() -> None:
    console, text = screen()
    now = results()
    now["large"]["servers"]["serve-app"]["602112"]["cpu_us"]["median"] = 2000.0
    report.show_changes(regression.compare(now, results()), 0.1, console)
    assert "+33.3%" in text.getvalue()
    assert text.getvalue().count("WORSE") == 1


def test_the_json_keeps_scenarios_that_were_not_run_now(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "bench.json"
    measured = results()
    store.write_json(path, {"digits": measured["digits"]})
    assert len(json.loads(path.read_text())["musts"]) == 6
    held = store.write_json(path, {"startup": measured["startup"]})
    stored = json.loads(path.read_text())
    assert stored == held
    assert set(stored) == {"digits", "startup", "musts"}
    assert stored["digits"]["servers"]["serve-app"]["64"]["cpu_us"]["median"] == 130.0
    assert stored["digits"]["on"]["cores"] >= 1
    assert [must["passed"] for must in stored["musts"]] == [True] * 7


@pytest.mark.parametrize("before", ["", "no json", "[]"])
def test_a_damaged_file_is_replaced(tmp_path: Path, before: str) -> None:
    path = tmp_path / "bench.json"
    path.write_text(before)
    store.write_json(path, {"startup": results()["startup"]})
    assert set(json.loads(path.read_text())) == {"startup", "musts"}


def test_the_plot_needs_the_digits(tmp_path: Path) -> None:
    path = tmp_path / "bench.svg"
    assert not plots.plot({"startup": results()["startup"]}, path)
    assert not path.exists()


@pytest.mark.parametrize("scenarios", [("digits",), ("digits", "protocols")])
def test_the_plot_takes_what_there_is(tmp_path: Path, scenarios: tuple[str, ...]) -> None:
    path = tmp_path / "bench.svg"
    assert plots.plot({name: results()[name] for name in scenarios}, path)
    assert "<svg" in path.read_text()
