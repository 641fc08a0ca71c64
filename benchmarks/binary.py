"""Requests and answers with the Open Inference Protocol's binary tensor extension, FP32 only."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

LENGTH = "inference-header-content-length"
Array = NDArray[np.float32]


def request(tensor: str, value: Array) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request with one input, which asks for binary outputs."""
    data = np.ascontiguousarray(value, "<f4").tobytes()
    described = {
        "name": tensor,
        "shape": list(value.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(data)},
    }
    document = {"inputs": [described], "parameters": {"binary_data_output": True}}
    head = json.dumps(document, separators=(",", ":")).encode()
    headers = {"content-type": "application/octet-stream", LENGTH: str(len(head))}
    return head + data, headers


def first_output(body: bytes, head_bytes: int) -> Array:
    """The first output of a binary answer.

    Args:
        body: of the answer.
        head_bytes: its header `Inference-Header-Content-Length`.
    """
    described = json.loads(body[:head_bytes])["outputs"][0]
    size = described["parameters"]["binary_data_size"]
    found: Array = np.frombuffer(body[head_bytes : head_bytes + size], "<f4")
    return found.reshape(described["shape"])
