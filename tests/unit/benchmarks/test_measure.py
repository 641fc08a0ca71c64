"""Samples become medians; a measurement needs an answer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import measure, wrk
from benchmarks.errors import BenchmarkError
from benchmarks.measure import Sample, sample, spread, summarize
from benchmarks.running import Running
from benchmarks.wrk import WrkResult


def test_medians_with_spread() -> None:
    samples = [
        Sample(100.0, 1.0, 2.0, 0, {"ingress": 10.0, "raylet": 1.0}),
        Sample(300.0, 3.0, 9.0, 2, {"ingress": 30.0}),
        Sample(200.0, 2.0, 4.0, 1, {"ingress": 20.0, "raylet": 3.0}),
    ]
    result = summarize(samples)
    assert result["requests_per_s"] == {"median": 200.0, "min": 100.0, "max": 300.0}
    assert result["p99_ms"] == {"median": 4.0, "min": 2.0, "max": 9.0}
    assert result["errors"] == 3
    assert result["cpu_us"] == {"median": 23.0, "min": 11.0, "max": 30.0}
    assert result["cpu_us_by_process"]["raylet"] == {"median": 1.0, "min": 0.0, "max": 3.0}


def test_one_value_is_its_own_spread() -> None:
    assert spread([5.0]) == {"median": 5.0, "min": 5.0, "max": 5.0}


def running(tmp_path: Path) -> Running:
    log = tmp_path / "log"
    log.write_text("the last words\n")
    return Running("a server", "http://127.0.0.1:1", os.getpid(), log, 1.0)


def test_a_server_without_answers_cannot_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wrk, "run", lambda *_: WrkResult(1.0, 0, 9, 0, 0.0, 0.0))
    with pytest.raises(BenchmarkError, match=r"(?s)a server answered nothing.*the last words"):
        sample(running(tmp_path), "/", [b"{}"], 1, 1)


def test_cpu_is_divided_by_the_requests_that_were_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Meter:
        def __init__(self, roots: list[int]) -> None:
            assert roots == [os.getpid()]

        def start(self) -> None:
            return

        def stop(self) -> dict[str, float]:
            return {"ingress": 2.0}

    monkeypatch.setattr(wrk, "run", lambda *_: WrkResult(4.0, 1000, 7, 3, 1.5, 2.5))
    monkeypatch.setattr(measure, "CpuMeter", Meter)
    one = sample(running(tmp_path), "/", [b"{}"], 1, 4)
    assert one == Sample(250.0, 1.5, 2.5, 10, {"ingress": 2000.0})
