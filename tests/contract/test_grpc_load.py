"""The load generator counts what it should, and the bare server is one that it accepts."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.grpc_load import digits_request, fault_of, measure
from benchmarks.servers.bare_grpc import ANSWER
from serve_app.domain.inference import InferenceResult
from serve_app.domain.tensor import TensorSpec
from serve_app.grpc.answer import encode_response
from serve_app.testing import model_route
from tests.contract.grpc_server import serving

X = (TensorSpec(name="x", datatype="FP32", shape=(-1, 64)),)
DIGITS = model_route("digits", inputs=X, weights={"2": 100})


@pytest.mark.parametrize("typed", [False, True])
async def test_good_answers(typed: bool) -> None:
    async with serving(DIGITS) as server:
        report = await measure(server.address, 3, 0.2, digits_request(typed=typed), channels=2)
    assert (report.errors, report.first_error, report.channels) == (0, "", 2)
    assert report.answered == len(server.codes()) > 3
    assert 0 < report.p50_ms <= report.p90_ms <= report.p99_ms


async def test_refusals() -> None:
    async with serving() as server:
        report = await measure(server.address, 2, 0.1, digits_request())
    assert report.answered == 0
    assert report.errors > 0
    assert report.first_error.startswith("NOT_FOUND")


async def test_answers_that_are_none() -> None:
    def answer(value: float) -> bytes:
        outputs = {"y": np.full((1, 3), value, np.float32)}
        return encode_response(InferenceResult("m", "1", outputs), "", typed=False)

    assert fault_of(ANSWER) == fault_of(answer(1.0)) == ""
    assert "finite" in fault_of(answer(np.nan))
    assert "outputs" in fault_of(b"")
    assert "no ModelInferResponse" in fault_of(b"\xff")
