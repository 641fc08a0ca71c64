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

    monkeypatch.setattr(command, "ALL", {name: scenario(name) for name in results()})
    return calls


def test_without_arguments_everything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main([]) == 0
    names = ["digits", "protocols", "large", "minilm", "steady", "startup", "routing", "scaling"]
    names += ["split", "neighbours", "rollback"]
    assert asked == [(name, 6.0, 3) for name in names]
    stored = json.loads(Path("docs/reports/bench.json").read_text())
    assert len(stored["musts"]) == 22
    assert Path("docs/reports/bench.svg").exists()


def test_one_scenario_with_options(tmp_path: Path, asked: list[Any]) -> None:
    path = tmp_path / "x.json"
    arguments = ["startup", "--seconds", "2.5", "--repeats", "1", "--output", str(path)]
    assert command.main(arguments) == 0
    assert asked == [("startup", 2.5, 1)]
    assert set(json.loads(path.read_text())) == {"startup", "musts"}


def test_several_scenarios_and_all_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    def scenario(name: str) -> Any:
        def run(settings: Settings) -> Any:
            seen.append(settings)
            return results()[name]

        return run

    monkeypatch.setattr(command, "ALL", {name: scenario(name) for name in ("digits", "steady")})
    path = tmp_path / "x.json"
    arguments = ["steady", "digits", "--connections", "1,64", "--minutes", "0.5"]
    assert command.main([*arguments, "--output", str(path)]) == 0
    assert [(of.connections, of.minutes) for of in seen] == [((1, 64), 0.5)] * 2
    assert set(json.loads(path.read_text())) == {"digits", "steady", "musts"}


def test_a_run_is_compared_with_a_stored_one_and_does_not_replace_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    now = results()["digits"]
    monkeypatch.setattr(command, "ALL", {"digits": lambda settings: now})
    assert command.main(["digits"]) == 0
    baseline = Path("docs/reports/bench.json").read_bytes()
    assert command.main(["digits", "--compare"]) == 0
    now["servers"]["serve-app"]["64"]["requests_per_s"]["median"] *= 0.8
    assert command.main(["digits", "--compare"]) == 1
    assert "WORSE" in capsys.readouterr().out
    assert command.main(["digits", "--compare", "--tolerance", "0.3"]) == 0
    assert Path("docs/reports/bench.json").read_bytes() == baseline
    assert Path("var/bench.json").exists()


def test_without_a_baseline_nothing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main(["--compare"]) == 1
    assert "no baseline" in capsys.readouterr().err
    assert asked == []


def test_check_fails_with_a_broken_promise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = results()["startup"]
    slow["first_answer_s"]["first"]["median"] = 31.0
    monkeypatch.setattr(command, "ALL", {"startup": lambda settings: slow})
    arguments = ["startup", "--output", str(tmp_path / "x.json")]
    assert command.main(arguments) == 0
    assert command.main([*arguments, "--check"]) == 1


def test_what_could_not_be_measured_is_said_and_what_was_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(settings: Settings) -> Any:
        raise BenchmarkError("it did not start")

    good = results()["digits"]
    monkeypatch.setattr(command, "ALL", {"digits": lambda settings: good, "minilm": broken})
    path = tmp_path / "x.json"
    assert command.main(["--output", str(path)]) == 1
    assert "it did not start" in capsys.readouterr().err
    assert set(json.loads(path.read_text())) == {"digits", "musts"}


@pytest.mark.parametrize("scenario", ["all", "digits", "minilm", "ingresses", "profile"])
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
        ["--connections", "1,x"],
        ["--connections", "0"],
        ["--minutes", "0"],
        ["digits", "users"],
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
