"""From py-spy's samples and the threads' CPU time to microseconds by layer."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import layers
from benchmarks.errors import BenchmarkError
from benchmarks.ingress_profile import attribute, draw, markdown, parse

RAW = """\
thread (11): "MainThread";main_loop (ray/_private/worker.py:978) 2
thread (22): "AsyncIO Thread: default";run (threading.py:9);infer (serve_app/dataplane.py:80) 30
thread (22): "AsyncIO Thread: default";run (threading.py:9);infer (serve_app/dataplane.py:81) 10
thread (22): "AsyncIO Thread: default";run (threading.py:9);call (deployments/gateway.py:60) 60
thread (0x2C): "no frames" 5
"""
THREADS = {(11, "ray"): 1.0, (22, "ray"): 100.0, (0x2C, "ray"): 4.0, (55, "grpc_poll-12"): 20.0}


def test_samples_are_read() -> None:
    stacks = parse(RAW)
    assert sum(stacks.values()) == 107
    assert stacks[22, ("run (threading.py:9)", "infer (serve_app/dataplane.py:80)")] == 30
    assert stacks[44, ()] == 5


@pytest.mark.parametrize("raw", ["run (a.py:1) 5", 'thread (11): "a";run (a.py:1) five'])
def test_another_format_is_an_error(raw: str) -> None:
    with pytest.raises(BenchmarkError, match="not understood"):
        parse(raw)


def test_cpu_time_of_a_thread_is_shared_out_over_its_own_stacks() -> None:
    profile = attribute(parse(RAW), THREADS, 7000.0)
    assert profile.total_us == pytest.approx(125.0)
    assert profile.layers[layers.DATA_PLANE] == pytest.approx(40.0)
    assert profile.layers[layers.GATEWAY] == pytest.approx(61.0)
    assert profile.layers[layers.NATIVE] == pytest.approx(24.0)
    functions = profile.functions
    assert functions["serve_app/dataplane.py:infer", layers.DATA_PLANE] == pytest.approx(40.0)
    assert functions["thread grpc_poll", layers.NATIVE] == pytest.approx(20.0)


def test_a_thread_that_ended_meanwhile_costs_nothing() -> None:
    assert attribute(parse(RAW), {}, 1.0).total_us == 0


def test_the_report_shows_layers_and_functions(tmp_path: Path) -> None:
    profile = attribute(parse(RAW), THREADS, 7000.0)
    text = markdown(profile, "picture.svg")
    assert "| data plane and batcher | 40.0 | 32.0% |" in text
    assert (
        "| `deployments/gateway.py:call` | gateway: channel or handle, Ray | 60.00 | 48.0% |"
        in text
    )
    assert "7,000 requests/s, 125.0 µs of CPU per request" in text
    draw(profile, tmp_path / "picture.svg")
    assert "<svg" in (tmp_path / "picture.svg").read_text()
