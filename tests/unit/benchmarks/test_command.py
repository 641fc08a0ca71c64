"""The command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import benchmarks.__main__ as command
from benchmarks.errors import BenchmarkError
from benchmarks.settings import Settings
from tests.unit.benchmarks.results import results


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scenarios here measure nothing, so wrk need not be there."""
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, int]]:
    """Scenarios that answer at once and note how they were asked."""
    calls: list[tuple[str, float, int]] = []

    def scenario(name: str) -> Any:
        def run(settings: Settings) -> Any:
            calls.append((name, settings.seconds, settings.repeats))
            return results()[name]

        return run

    monkeypatch.setattr(command, "MEASURED", {name: scenario(name) for name in results()})
    return calls


def test_without_arguments_everything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main([]) == 0
    assert asked == [("digits", 6.0, 3), ("minilm", 6.0, 3), ("startup", 6.0, 3)]
    stored = json.loads(Path("docs/reports/bench-foundation.json").read_text())
    assert len(stored["musts"]) == 6
    assert Path("docs/reports/bench-foundation.svg").exists()


def test_one_scenario_with_options(tmp_path: Path, asked: list[Any]) -> None:
    path = tmp_path / "x.json"
    arguments = ["startup", "--seconds", "2.5", "--repeats", "1", "--output", str(path)]
    assert command.main(arguments) == 0
    assert asked == [("startup", 2.5, 1)]
    assert set(json.loads(path.read_text())) == {"startup", "musts"}


def test_check_fails_with_a_broken_promise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = results()["startup"]
    slow["first_answer_s"]["first"]["median"] = 31.0
    monkeypatch.setattr(command, "MEASURED", {"startup": lambda settings: slow})
    arguments = ["startup", "--output", str(tmp_path / "x.json")]
    assert command.main(arguments) == 0
    assert command.main([*arguments, "--check"]) == 1


def test_what_could_not_be_measured_is_said_and_what_was_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(settings: Settings) -> Any:
        raise BenchmarkError("it did not start")

    good = results()["digits"]
    monkeypatch.setattr(command, "MEASURED", {"digits": lambda settings: good, "minilm": broken})
    path = tmp_path / "x.json"
    assert command.main(["--output", str(path)]) == 1
    assert "it did not start" in capsys.readouterr().err
    assert set(json.loads(path.read_text())) == {"digits", "musts"}


@pytest.mark.parametrize("scenario", ["all", "digits", "minilm", "profile"])
def test_without_wrk_nothing_starts(
    scenario: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    asked: list[Any],
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert command.main([scenario]) == 1
    assert "apt-get install wrk" in capsys.readouterr().err
    assert asked == []


def test_without_wrk_the_start_can_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[Any]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert command.main(["startup", "--output", str(tmp_path / "x.json")]) == 0
    assert [name for name, *_ in asked] == ["startup"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["everything"],
        ["digits", "--seconds", "0"],
        ["digits", "--repeats", "-1"],
        ["--repeats", "x"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments)
    assert stopped.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["--help"])
    assert stopped.value.code == 0
    assert "python -m benchmarks digits --seconds 10" in capsys.readouterr().out
