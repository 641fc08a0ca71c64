"""Sentence embeddings: rows computed in groups of similar length, against order of arrival."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.cluster import cluster
from benchmarks.errors import BenchmarkError
from benchmarks.measure import Sample, sample, summarize, warm_up
from benchmarks.sentences import LENGTHS, body, sentences
from benchmarks.settings import Settings

PATH = "/v2/models/minilm/versions/1/infer"
INPUT = "text"
CONNECTIONS = 32
MAX_ROWS = 32
COUNT = 512
MODES = {"grouped": "8", "arrival": "null"}
"""Name -> `group_rows` of the predictor."""


def run(settings: Settings) -> dict[str, Any]:
    """Measures the cluster with and without groups, in turns."""
    texts = {name: sentences(COUNT, name) for name in LENGTHS}
    samples: dict[str, dict[str, list[Sample]]] = {
        lengths: {mode: [] for mode in MODES} for lengths in LENGTHS
    }
    vectors: dict[str, list[float]] = {}
    probe = body(texts["uniform"][0], INPUT)
    with tempfile.TemporaryDirectory(prefix="bench-minilm-") as folder:
        for repeat in range(settings.repeats):
            modes = list(MODES)[:: 1 if repeat % 2 == 0 else -1]
            for mode in modes:
                settings.tell(f"minilm, repeat {repeat + 1} of {settings.repeats}: {mode}")
                with cluster(_overrides(MODES[mode]), Path(folder, "home"), PATH, probe) as server:
                    vectors[mode] = _embedding(server.url, probe)
                    for lengths, of in texts.items():
                        requests = [body(text, INPUT) for text in of]
                        warm_up(server, PATH, requests)
                        one = sample(server, PATH, requests, CONNECTIONS, 2 * settings.seconds)
                        samples[lengths][mode].append(one)
    _check_same(vectors)
    return {
        "model": "minilm, one sentence of 3 to 120 words per request, OIP JSON",
        "connections": CONNECTIONS,
        "max_rows": MAX_ROWS,
        "seconds": 2 * settings.seconds,
        "repeats": settings.repeats,
        "lengths": {
            lengths: _compare({mode: summarize(of) for mode, of in by_mode.items()})
            for lengths, by_mode in samples.items()
        },
    }


def _overrides(group_rows: str) -> Sequence[str]:
    version = "models.minilm.versions.1"
    return (
        "model=[minilm]",
        "ingress.replicas=1",
        f"{version}.replicas.min=1",
        f"{version}.replicas.max=1",
        f"{version}.batching.max_rows={MAX_ROWS}",
        f"{version}.predictor.group_rows={group_rows}",
    )


def _compare(modes: dict[str, Any]) -> dict[str, Any]:
    grouped, arrival = (modes[mode]["requests_per_s"]["median"] for mode in ("grouped", "arrival"))
    return {"modes": modes, "ratio": round(grouped / arrival, 3)}


def _embedding(url: str, request: bytes) -> list[float]:
    headers = {"content-type": "application/json"}
    answer = httpx.post(url + PATH, content=request, headers=headers, timeout=30.0, trust_env=False)
    outputs = answer.json()["outputs"]
    found: list[float] = next(o["data"] for o in outputs if o["datatype"] == "FP32")
    return found


def _check_same(vectors: dict[str, list[float]]) -> None:
    if not np.allclose(np.ravel(vectors["grouped"]), np.ravel(vectors["arrival"]), atol=1e-4):
        raise BenchmarkError("the embeddings differ between grouped and arrival order")
