"""Samples become medians; a measurement needs an answer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import measure, memory, wrk
from benchmarks.errors import BenchmarkError
from benchmarks.load import LoadResult
from benchmarks.measure import Sample, sample, spread, summarize
from benchmarks.running import Running


def test_medians_with_spread() -> None:
    samples = [
        Sample(100.0, 1.0, 2.0, 0, {"ingress": 10.0, "raylet": 1.0}, 1.5, {"ingress": 90.0}),
        Sample(300.0, 3.0, 9.0, 2, {"ingress": 30.0}, 3.5, {"ingress": 110.0}),
        Sample(200.0, 2.0, 4.0, 1, {"ingress": 20.0, "raylet": 3.0}, 2.5, {"ingress": 95.0}),
    ]
    result = summarize(samples)
    assert result["requests_per_s"] == {"median": 200.0, "min": 100.0, "max": 300.0}
    assert result["p90_ms"] == {"median": 2.5, "min": 1.5, "max": 3.5}
    assert result["p99_ms"] == {"median": 4.0, "min": 2.0, "max": 9.0}
    assert result["errors"] == 3
    assert result["cpu_us"] == {"median": 23.0, "min": 11.0, "max": 30.0}
    assert result["cpu_us_by_process"]["raylet"] == {"median": 1.0, "min": 0.0, "max": 3.0}
    assert result["rss_mib_by_process"] == {"ingress": {"median": 95, "min": 90, "max": 110}}


def test_what_has_no_latency_gets_none() -> None:
    result = summarize([Sample(100.0, None, None, 0, {"server": 10.0})])
    assert not {"p50_ms", "p90_ms", "p99_ms"} & result.keys()


def test_one_value_is_its_own_spread() -> None:
    assert spread([5.0]) == {"median": 5.0, "min": 5.0, "max": 5.0}


def running(tmp_path: Path) -> Running:
    log = tmp_path / "log"
    log.write_text("the last words\n")
    return Running("a server", "http://127.0.0.1:1", os.getpid(), log, 1.0)


def test_a_server_without_answers_cannot_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wrk, "run", lambda *_: LoadResult(1.0, 0, 9, 0, 0.0, 0.0, 0.0))
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

    monkeypatch.setattr(wrk, "run", lambda *_: LoadResult(4.0, 1000, 7, 3, 1.5, 2.0, 2.5))
    monkeypatch.setattr(measure, "CpuMeter", Meter)
    monkeypatch.setattr(memory, "resident", lambda roots: {"ingress": 99.0})
    one = sample(running(tmp_path), "/", [b"{}"], 1, 4)
    assert one == Sample(250.0, 1.5, 2.5, 10, {"ingress": 2000.0}, 2.0, {"ingress": 99.0})


def test_memory_of_a_process() -> None:
    before = sum(memory.resident([os.getpid()]).values())
    held = bytearray(64 * 1024 * 1024)
    held[:: memory.PAGE] = b"x" * len(held[:: memory.PAGE])
    grown = sum(memory.resident([os.getpid()]).values()) - before
    assert 60 < grown < 80
