"""Tables, JSON and plot."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import report
from benchmarks.musts import evaluate
from tests.unit.benchmarks.results import results


def shown(width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width)
    measured = results()
    report.show(measured, evaluate(measured), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_every_scenario_has_its_table() -> None:
    text = shown()
    assert "6,000 (6,000-6,000)" in text
    assert "CPU µs per request, by process" in text
    assert "1.50x" in text
    assert "30.0 (29.0-31.0)" in text
    assert text.count("pass") == 6
    assert "FAIL" not in text


def test_the_json_keeps_scenarios_that_were_not_run_now(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "bench.json"
    measured = results()
    report.write_json(path, {"digits": measured["digits"]})
    assert len(json.loads(path.read_text())["musts"]) == 4
    report.write_json(path, {"startup": measured["startup"]})
    stored = json.loads(path.read_text())
    assert set(stored) == {"digits", "startup", "musts"}
    assert stored["digits"]["servers"]["serve-app"]["64"]["cpu_us"]["median"] == 250.0
    assert stored["digits"]["on"]["cores"] >= 1
    assert [must["passed"] for must in stored["musts"]] == [True] * 5


@pytest.mark.parametrize("before", ["", "no json", "[]"])
def test_a_damaged_file_is_replaced(tmp_path: Path, before: str) -> None:
    path = tmp_path / "bench.json"
    path.write_text(before)
    report.write_json(path, {"startup": results()["startup"]})
    assert set(json.loads(path.read_text())) == {"startup", "musts"}


def test_the_plot_needs_the_digits(tmp_path: Path) -> None:
    path = tmp_path / "bench.svg"
    assert not report.plot({"startup": results()["startup"]}, path)
    assert not path.exists()
    assert report.plot(results(), path)
    assert "<svg" in path.read_text()
