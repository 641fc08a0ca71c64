"""The requests for the model digits: real images from scikit-learn, one row each, as OIP JSON."""

from __future__ import annotations

import json

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.errors import BenchmarkError

PATH = "/v2/models/digits/versions/2/infer"
Array = NDArray[np.float32]


def bodies(count: int = 32) -> list[bytes]:
    """Request bodies with different images, the same ones each time."""
    from sklearn.datasets import load_digits

    return [body(row) for row in load_digits().data[:count].tolist()]


def body(row: list[float]) -> bytes:
    """The request for one image."""
    tensor = {"name": "x", "shape": [1, 64], "datatype": "FP32", "data": row}
    return json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()


def logits(url: str, requests: list[bytes]) -> Array:
    """What a server answers to these requests, one row each.

    Raises:
        BenchmarkError: it refuses one of them.
    """
    rows = []
    with httpx.Client(trust_env=False, timeout=30.0) as client:
        for request in requests:
            answer = client.post(
                url + PATH, content=request, headers={"content-type": "application/json"}
            )
            if answer.status_code != 200:
                raise BenchmarkError(f"{url} answers {answer.status_code}: {answer.text[:500]}")
            rows.append(np.array(answer.json()["outputs"][0]["data"], np.float32).ravel())
    return np.stack(rows)


def check_same(name: str, found: Array, expected: Array) -> None:
    """Raises BenchmarkError unless a server computes what the others compute."""
    if found.shape != expected.shape or not np.allclose(found, expected, atol=1e-3):
        raise BenchmarkError(f"{name} computes something else than the other servers")
