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
from serve_app.http.v2.infer_answer import _MAX_TEMPLATES, AnswerForm, InferAnswers


def answer(
    outputs: dict[str, Array], form: AnswerForm, answers: InferAnswers | None = None
) -> tuple[dict[bytes, bytes], Any, bytes]:
    answers = answers or InferAnswers()
    lines, size, parts = answers.encode(InferenceResult("m", "2", outputs), form)
    body = b"".join(parts)
    assert len(body) == size
    described = dict(line.split(b": ") for line in lines.split(b"\r\n"))
    assert described.pop(b"x-model-version") == b"2"
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


MIXED = AnswerForm(outputs={"a": False, "b": True})


@pytest.mark.parametrize("form", [AnswerForm(), AnswerForm(binary=True), MIXED])
def test_a_remembered_answer_is_the_same_as_a_new_one(form: AnswerForm) -> None:
    answers = InferAnswers()
    for value in range(3):
        outputs: dict[str, Array] = {
            "a": np.full((1, 2), 10.0**value, np.float64),
            "b": np.full(3, value, np.int32),
        }
        assert answer(outputs, form, answers) == answer(outputs, form)
    assert len(answers._templates) == 1


def test_shape_datatype_name_form_version_and_model_each_make_another_answer() -> None:
    answers = InferAnswers()
    ones = np.ones((1, 2), np.float32)
    binary = AnswerForm(binary=True)
    cases: list[tuple[str, str, dict[str, Array], AnswerForm]] = [
        ("m", "1", {"y": ones}, AnswerForm()),
        ("m", "1", {"y": ones}, binary),
        ("m", "1", {"y": ones.ravel()}, binary),
        ("m", "1", {"y": ones.view(np.int32)}, binary),
        ("m", "1", {"z": ones}, binary),
        ("m", "1", {"y": ones, "z": ones}, binary),
        ("m", "2", {"y": ones}, binary),
        ("n", "1", {"y": ones}, binary),
    ]
    for model, version, outputs, form in [*cases, *cases]:
        result = InferenceResult(model, version, outputs)
        assert answers.encode(result, form) == InferAnswers().encode(result, form)
    assert len(answers._templates) == len(cases)


def test_what_an_id_or_bytes_make_unique_is_not_remembered() -> None:
    answers = InferAnswers()
    text: Array = np.array([b"xy"], np.object_)
    for name in ("1", '"data":"\0"'):
        _, document, _ = answer({"y": np.ones(1, np.int8)}, AnswerForm(name), answers)
        assert (document["id"], document["outputs"][0]["data"]) == (name, [1])
    answer({"y": text}, AnswerForm(binary=True), answers)
    assert not answers._templates
    answer({"y": text}, AnswerForm(), answers)
    assert len(answers._templates) == 1


def test_remembered_answers_are_bounded() -> None:
    answers = InferAnswers()
    for rows in range(2 * _MAX_TEMPLATES + 10):
        answer({"y": np.zeros(rows, np.int8)}, AnswerForm(binary=True), answers)
    assert 0 < len(answers._templates) <= _MAX_TEMPLATES


def test_an_unknown_datatype_fails_however_often_it_comes() -> None:
    answers = InferAnswers()
    for form in (AnswerForm(), AnswerForm(binary=True), AnswerForm(), AnswerForm(binary=True)):
        with pytest.raises(ModelFailed):
            answer({"y": np.zeros(1, np.complex64)}, form, answers)
