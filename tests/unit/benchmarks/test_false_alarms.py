from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.false_alarms import BROKEN, LATENCIES, LIMITS, OUTCOMES, RATES, SLOW, WORSE, main


def test_a_report_has_a_line_per_case_and_is_the_same_for_the_same_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first.md", tmp_path / "second.md"
    for file in (first, second):
        assert main(["--runs", "5", "--looks", "40", "--seed", "3", "--output", str(file)]) == 0
    assert first.read_text() == second.read_text()
    assert first.read_text() * 2 == capsys.readouterr().out
    lines = [line for line in first.read_text().splitlines() if line.startswith("| ")]
    cases = len(RATES) + len(LIMITS) + len(LATENCIES) + 2 * len(OUTCOMES)
    cases += len(BROKEN) + len(SLOW) + 2 * len(WORSE)
    assert len(lines) == cases + 2
    assert len({line.count("|") for line in lines}) == 2


def test_a_canary_that_has_not_broken_in_time_has_no_figures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["--runs", "5", "--looks", "40"])
    assert (
        "after 300 s without | errors x 1.2 | 10 % | 0 % |  |  |  |  |" in capsys.readouterr().out
    )


@pytest.mark.parametrize("wrong", [["--runs", "0"], ["--looks", "many"]])
def test_numbers_that_are_none_are_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(wrong)
