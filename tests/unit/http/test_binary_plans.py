"""A JSON part that was seen before gives the same request as one that was not."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from serve_app.config.ingress import RequestLimits
from serve_app.errors import InvalidInput, MalformedRequest
from serve_app.http.v2.binary_plans import BinaryPlans
from serve_app.testing import model_route

MODEL = model_route()


def plans() -> BinaryPlans:
    return BinaryPlans(RequestLimits(), 32)


def request(datatype: str, blob: bytes, shape: list[int], **more: object) -> tuple[bytes, bytes]:
    tensor = {
        "name": "x",
        "datatype": datatype,
        "shape": shape,
        "parameters": {"binary_data_size": len(blob)},
    }
    text = orjson.dumps({"inputs": [tensor], **more})
    return text + blob, str(len(text)).encode()


@pytest.mark.parametrize("datatype", ["FP32", "INT64", "BOOL", "FP16"])
def test_the_second_request_is_read_by_the_plan_of_the_first(datatype: str) -> None:
    target = plans()
    size = {"FP32": 4, "INT64": 8, "BOOL": 1, "FP16": 2}[datatype]
    first, length = request(datatype, bytes(6 * size), [2, 3])
    second = first[: -6 * size] + bytes([1, 0] * (3 * size))
    one = target.decode(first, length, MODEL)
    assert len(target._plans) == 1
    two = target.decode(second, length, MODEL)
    expected = plans().decode(second, length, MODEL)
    assert two[1:4] == one[1:4] == expected[1:4]
    assert two.layout is not None
    assert expected.layout is None
    assert target.decode(first, length, MODEL).layout is two.layout
    np.testing.assert_array_equal(two.inputs["x"], expected.inputs["x"], strict=True)


def test_a_plan_does_not_excuse_a_wrong_length_or_value() -> None:
    target = plans()
    body, length = request("BOOL", b"\x01\x00", [1, 2])
    target.decode(body, length, MODEL)
    with pytest.raises(InvalidInput, match="announced"):
        target.decode(body[:-1], length, MODEL)
    with pytest.raises(MalformedRequest, match="belong to no input"):
        target.decode(body + b"\x00", length, MODEL)
    with pytest.raises(InvalidInput) as caught:
        target.decode(body[:-1] + b"\x07", length, MODEL)
    assert caught.value.field == "inputs[0].parameters.binary_data_size"


def test_what_differs_each_time_is_not_remembered() -> None:
    target = plans()
    target.decode(*request("FP32", bytes(4), [1, 1], id="42"), MODEL)
    target.decode(*request("BYTES", b"\x01\x00\x00\x00a", [1]), MODEL)
    target.decode(*request("FP32", bytes(4), [1, 1], parameters={"note": "x" * 3000}), MODEL)
    assert not target._plans


def test_plans_are_bounded() -> None:
    target = plans()
    for columns in range(1, 600):
        target.decode(*request("UINT8", bytes(columns), [1, columns]), MODEL)
    assert 0 < len(target._plans) <= 256
