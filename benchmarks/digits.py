"""The requests for the model digits: real images from scikit-learn, one row each."""

from __future__ import annotations

import json
from collections.abc import Mapping

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks import binary
from benchmarks.errors import BenchmarkError

JSON = {"content-type": "application/json"}
PATH = "/v2/models/digits/versions/2/infer"
Array = NDArray[np.float32]


def images(count: int = 32) -> Array:
    """Different images, the same ones each time: [count, 64]."""
    from sklearn.datasets import load_digits

    found: Array = load_digits().data[:count].astype(np.float32)
    return found


def bodies(count: int = 32) -> list[bytes]:
    """Request bodies with one image each."""
    return [body(row) for row in images(count).tolist()]


def body(row: list[float], shape: tuple[int, ...] = (1, 64)) -> bytes:
    """The request with one tensor `x`."""
    tensor = {"name": "x", "shape": shape, "datatype": "FP32", "data": row}
    return json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()


def binary_bodies(count: int = 32) -> tuple[list[bytes], dict[str, str]]:
    """Bodies of the same requests as binary tensors, and the headers that all of them have."""
    made = [binary.request("x", image[None]) for image in images(count)]
    return [found for found, _ in made], made[0][1]


def logits(url: str, requests: list[bytes], headers: Mapping[str, str] = JSON) -> Array:
    """What a server answers to these requests, one row each.

    Raises:
        BenchmarkError: it refuses one of them.
    """
    rows = []
    with httpx.Client(trust_env=False, timeout=30.0) as client:
        for request in requests:
            answer = client.post(url + PATH, content=request, headers=dict(headers))
            if answer.status_code != 200:
                raise BenchmarkError(f"{url} answers {answer.status_code}: {answer.text[:500]}")
            rows.append(_first_output(answer).ravel())
    return np.stack(rows)


def _first_output(answer: httpx.Response) -> Array:
    if binary.LENGTH in answer.headers:
        return binary.first_output(answer.content, int(answer.headers[binary.LENGTH]))
    return np.array(answer.json()["outputs"][0]["data"], np.float32)


def check_same(name: str, found: Array, expected: Array) -> None:
    """Raises BenchmarkError unless a server computes what the others compute."""
    if found.shape != expected.shape or not np.allclose(found, expected, atol=1e-3):
        raise BenchmarkError(f"{name} computes something else than the other servers")
