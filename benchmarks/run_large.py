"""Large OIP binary tensors to a model that computes nothing, beside a server that reads bodies."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks import binary, wrk
from benchmarks.cluster import NAME, cluster
from benchmarks.comparison import Comparison
from benchmarks.digits import body
from benchmarks.errors import BenchmarkError
from benchmarks.measure import sample
from benchmarks.running import Running, answers, launched
from benchmarks.settings import Settings

PATH = "/v2/models/image/versions/1/infer"
BARE_BODY = "bare-body"
CONNECTIONS = 8
WARM_UP_S = 2.0
SIDES = (224, 296, 1672)
"""Images of 3 x side x side FP32: 0.6, 1.05 and 33.5 MB."""
IMAGE_BYTES = 3 * SIDES[0] * SIDES[0] * 4
OVERRIDES = ("model=[image]", "ingress.replicas=1")


def run(settings: Settings) -> dict[str, Any]:
    """Measures the cluster and the bare process in turns, with bodies of each size."""
    images = {3 * side * side * 4: image(side) for side in SIDES}
    requests = {size: binary.request("x", value) for size, value in images.items()}
    comparison = Comparison("large", "bytes", settings)
    connections = settings.connections[0] if settings.connections else CONNECTIONS

    def visit(name: str, server: Running, repeat: int) -> None:
        for size, (request, headers) in requests.items():
            if name == NAME:
                _check(server.url, request, headers, float(images[size][0, 0, 0, 0]))
            wrk.run(server.url + PATH, [request], connections, WARM_UP_S, headers)
            one = sample(server, PATH, [request], connections, settings.seconds, headers)
            comparison.add(name, size, one)

    with (
        tempfile.TemporaryDirectory(prefix="bench-large-") as folder,
        httpx.Client(trust_env=False, timeout=10.0) as client,
    ):
        servers = {
            NAME: lambda: cluster(OVERRIDES, Path(folder, "home"), PATH, _probe()),
            BARE_BODY: lambda: launched(
                BARE_BODY,
                "bare_body",
                (),
                Path(folder),
                lambda port: answers(client, f"http://127.0.0.1:{port}/", b"{}"),
            ),
        }
        comparison.in_turns(servers, visit)
    return comparison.result(
        model="one image per request, OIP binary, first value returned", connections=connections
    )


def image(side: int) -> binary.Array:
    """A random image, the same each time."""
    random = np.random.default_rng(side)
    return random.random((1, 3, side, side), dtype=np.float32)


def _probe() -> bytes:
    return body([1.0, 2.0, 3.0], (1, 3, 1, 1))


def _check(url: str, request: bytes, headers: dict[str, str], expected: float) -> None:
    answer = httpx.post(url + PATH, content=request, headers=headers, timeout=30, trust_env=False)
    if answer.status_code != 200:
        raise BenchmarkError(f"{len(request):,} bytes: {answer.status_code} {answer.text[:500]}")
    found = binary.first_output(answer.content, int(answer.headers[binary.LENGTH]))
    if found.shape != (1, 1) or found[0, 0] != np.float32(expected):
        raise BenchmarkError(f"{len(request):,} bytes: another answer than the first value")
