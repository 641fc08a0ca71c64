"""Answers to infer requests: JSON, binary, and both in one."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import orjson
import pytest

from serve_app.domain.inference import InferenceResult
from serve_app.domain.tensor import Array
from serve_app.errors import InvalidInput, ModelFailed
from serve_app.http.v2.infer_answer import AnswerForm, encode_infer


def answer(outputs: dict[str, Array], form: AnswerForm) -> tuple[dict[bytes, bytes], Any, bytes]:
    body, lines = encode_infer(InferenceResult("m", "2", outputs), form)
    described = dict(line.split(b": ") for line in lines.split(b"\r\n"))
    length = int(described.get(b"inference-header-content-length", len(body)))
    assert described.pop(b"content-length") == b""  # its value is for the writer of the head
    return described, orjson.loads(body[:length]), body[length:]


def test_json() -> None:
    headers, document, rest = answer(
        {"y": np.array([[1.5, np.nan], [np.inf, 2]], np.float32)}, AnswerForm("q")
    )
    assert headers[b"content-type"] == b"application/json"
    assert rest == b""
    assert document == {
        "model_name": "m",
        "model_version": "2",
        "id": "q",
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [1.5, None, None, 2.0]}
        ],
    }


def test_no_id_unless_one_was_given() -> None:
    _, document, _ = answer({"y": np.zeros(1, np.int8)}, AnswerForm())
    assert "id" not in document
    _, document, _ = answer({"y": np.zeros(1, np.int8)}, AnswerForm(""))
    assert document["id"] == ""


def test_some_outputs_binary_and_some_json() -> None:
    outputs: dict[str, Array] = {
        "a": np.array([1, 2], np.int16),
        "b": np.array([3], np.float64),
        "c": np.array([b"xy", b""], np.object_),
        "d": np.zeros((0, 2), np.float32),
    }
    headers, document, rest = answer(outputs, AnswerForm(binary=True, outputs={"b": False}))
    assert headers[b"content-type"] == b"application/octet-stream"
    assert rest == b"\x01\x00\x02\x00" + b"\x02\x00\x00\x00xy\x00\x00\x00\x00"
    assert [entry.get("parameters") for entry in document["outputs"]] == [
        {"binary_data_size": 4},
        None,
        {"binary_data_size": 10},
        {"binary_data_size": 0},
    ]
    assert document["outputs"][1]["data"] == [3.0]
    assert "data" not in document["outputs"][0]


def test_one_output_binary_among_json() -> None:
    outputs: dict[str, Array] = {"a": np.array([1], np.uint8), "b": np.ones(1, ml_dtypes.bfloat16)}
    _, document, rest = answer(outputs, AnswerForm(outputs={"a": False, "b": True}))
    assert document["outputs"][0]["data"] == [1]
    assert rest == b"\x80\x3f"


def test_what_json_cannot_carry_asks_for_binary() -> None:
    for array in (np.array([b"\xff"], np.object_), np.ones(1, ml_dtypes.bfloat16)):
        with pytest.raises(InvalidInput, match="binary_data"):
            answer({"y": array}, AnswerForm())


def test_an_output_of_no_known_datatype_is_a_fault_of_the_model() -> None:
    with pytest.raises(ModelFailed):
        answer({"y": np.zeros(1, np.complex64)}, AnswerForm())
