"""Sentence embeddings: the cluster against plain torch that knows all sentences beforehand."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.cluster import NAME, cluster
from benchmarks.comparison import Comparison
from benchmarks.errors import BenchmarkError
from benchmarks.measure import Sample, sample, warm_up
from benchmarks.running import ROOT, Running, environment
from benchmarks.sentences import COUNT, LENGTHS, body, sentences
from benchmarks.settings import Settings

PLAIN = "plain-torch"
PATH = "/v2/models/minilm/versions/1/infer"
INPUT = "text"
CONNECTIONS = 32
MAX_ROWS = 32
THREADS = 1
"""That compute, here and there: what the cluster gives a version with `num_cpus` below 2."""
OVERRIDES = (
    "model=[minilm]",
    "ingress.replicas=1",
    "models.minilm.versions.1.replicas.min=1",
    "models.minilm.versions.1.replicas.max=1",
    f"models.minilm.versions.1.batching.max_rows={MAX_ROWS}",
)


def run(settings: Settings) -> dict[str, Any]:
    """Measures the cluster and plain torch in turns, with each mix of lengths."""
    requests = {
        lengths: [body(text, INPUT) for text in sentences(COUNT, lengths)] for lengths in LENGTHS
    }
    probe = requests["uniform"][0]
    # A request takes a hundred times as long as one of digits.
    settings = replace(settings, seconds=2 * settings.seconds)
    connections = settings.connections[0] if settings.connections else CONNECTIONS
    comparison = Comparison("minilm", "lengths", settings)
    vectors: dict[str, list[float]] = {}

    def visit(name: str, server: Running | None, repeat: int) -> None:
        for lengths, of in requests.items():
            if server is None:
                one, vector = plain_torch(lengths, settings.seconds)
            else:
                warm_up(server, PATH, of)
                one = sample(server, PATH, of, connections, settings.seconds)
                vector = _embedding(server.url, of[0])
            comparison.add(name, lengths, one)
            _check_same(vectors.setdefault(lengths, vector), vector)

    def plain() -> AbstractContextManager[Running | None]:
        return nullcontext()

    with tempfile.TemporaryDirectory(prefix="bench-minilm-") as folder:

        def started() -> AbstractContextManager[Running | None]:
            return cluster(OVERRIDES, Path(folder, "home"), PATH, probe)

        comparison.in_turns({NAME: started, PLAIN: plain}, visit)
    return comparison.result(
        model="minilm, one sentence of 3 to 120 words per request, OIP JSON",
        connections=connections,
        max_rows=MAX_ROWS,
    )


def plain_torch(lengths: str, seconds: float) -> tuple[Sample, list[float]]:
    """Measures plain torch in a process of its own; also returns the first sentence's vector.

    Raises:
        BenchmarkError: it failed.
    """
    command = [sys.executable, "-m", "benchmarks.plain_torch", "--lengths", lengths]
    command += ["--seconds", f"{seconds:g}", "--threads", str(THREADS)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchmarkError(f"plain torch failed:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    cpu_us = {"server": found["cpu_us"]}
    return Sample(found["sentences_per_s"], None, None, 0, cpu_us), found["first"]


def _embedding(url: str, request: bytes) -> list[float]:
    headers = {"content-type": "application/json"}
    answer = httpx.post(url + PATH, content=request, headers=headers, timeout=30.0, trust_env=False)
    outputs = answer.json()["outputs"]
    found: list[float] = next(o["data"] for o in outputs if o["datatype"] == "FP32")
    return found


def _check_same(one: list[float], other: list[float]) -> None:
    if not np.allclose(np.ravel(one), np.ravel(other), atol=1e-4):
        raise BenchmarkError("the cluster and plain torch embed the same sentence differently")
