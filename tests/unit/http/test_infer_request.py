"""Whole infer requests: what is read, and what each broken one is told."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.config.ingress import RequestLimits
from serve_app.domain.tensor import TensorSpec
from serve_app.errors import InvalidInput, MalformedRequest, PayloadTooLarge, RequestError
from serve_app.http.v2.infer_answer import AnswerForm
from serve_app.http.v2.infer_request import InferCall, decode_infer
from serve_app.testing import model_route

LIMITS = RequestLimits()
MODEL = model_route()
PAIR = model_route(
    inputs=tuple(TensorSpec(name=name, datatype="FP32", shape=(-1,)) for name in "ab")
)


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]} | changes


def decode(document: Any, blob: bytes | None = None, depth: int = 32) -> InferCall:
    text = document if isinstance(document, bytes) else orjson.dumps(document)
    if blob is None:
        return decode_infer(text, None, MODEL, LIMITS, depth)
    return decode_infer(text + blob, str(len(text)).encode(), MODEL, LIMITS, depth)


def test_flat_and_nested_data_in_one_request() -> None:
    call = decode({"inputs": [tensor(), tensor(name="y", data=[[3, 4]])]})
    assert call.inputs["x"].tolist() == [[1.0, 2.0]]
    assert call.inputs["y"].tolist() == [[3.0, 4.0]]
    assert call == InferCall(call.inputs, (), None, AnswerForm())


def test_id_parameters_and_requested_outputs() -> None:
    call = decode(
        {
            "id": "q",
            "parameters": {"timeout": 1500, "binary_data_output": True, "anything": 1.5},
            "inputs": [tensor(parameters={"note": "x"})],
            "outputs": [
                {"name": "a"},
                {"name": "b", "parameters": {"binary_data": False}},
                {"name": "c", "parameters": {"binary_data": True}},
            ],
        }
    )
    assert call.outputs == ("a", "b", "c")
    assert call.timeout_s == 0.0015
    assert call.form == AnswerForm("q", True, {"a": True, "b": False, "c": True})


def test_a_timeout_of_zero_is_none() -> None:
    assert decode({"inputs": [tensor()], "parameters": {"timeout": 0}}).timeout_s is None


def test_unknown_members_are_ignored() -> None:
    call = decode({"inputs": [tensor(more=[[1]])], "extra": {"a": {"b": 1}}})
    assert call.inputs["x"].shape == (1, 2)


def test_binary_inputs_follow_the_json_in_order() -> None:
    first, second = np.array([1, 2], np.float32), np.array([7], np.int64)
    call = decode(
        {
            "inputs": [
                {
                    "name": "a",
                    "shape": [2],
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": 8},
                },
                tensor(name="j"),
                {
                    "name": "b",
                    "shape": [1],
                    "datatype": "INT64",
                    "parameters": {"binary_data_size": 8},
                },
            ]
        },
        first.tobytes() + second.tobytes(),
    )
    assert call.inputs["a"].tolist() == [1.0, 2.0]
    assert call.inputs["j"].tolist() == [[1.0, 2.0]]
    assert call.inputs["b"].tolist() == [7]


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({}, "inputs"),
        ({"inputs": None}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": {}}, "inputs"),
        ({"inputs": [1]}, "inputs[0]"),
        ({"inputs": [tensor(name=None)]}, "inputs[0].name"),
        ({"inputs": [tensor(), tensor()]}, "inputs[1].name"),
        ({"inputs": [tensor(), tensor(name="y", datatype="FP8")]}, "inputs[1].datatype"),
        ({"inputs": [tensor(datatype=[])]}, "inputs[0].datatype"),
        ({"inputs": [tensor(datatype="fp32")]}, "inputs[0].datatype"),
        ({"inputs": [tensor(shape=[1, -2])]}, "inputs[0].shape"),
        ({"inputs": [tensor(shape=[1] * 1000)]}, "inputs[0].shape"),
        ({"inputs": [tensor(shape=[2**63, 2])]}, "inputs[0].data"),
        ({"inputs": [tensor(data=[1, 2, 3])]}, "inputs[0].data"),
        ({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}]}, "inputs[0].data"),
        ({"inputs": [tensor(parameters=[])]}, "inputs[0].parameters"),
        ({"inputs": [tensor(parameters={"a": {}})]}, "inputs[0].parameters.a"),
        ({"inputs": [tensor(parameters={"a": None})]}, "inputs[0].parameters.a"),
        ({"inputs": [tensor()], "id": 5}, "id"),
        ({"inputs": [tensor()], "parameters": 5}, "parameters"),
        ({"inputs": [tensor()], "parameters": {"a": [1]}}, "parameters.a"),
        ({"inputs": [tensor()], "parameters": {"timeout": -1}}, "parameters.timeout"),
        ({"inputs": [tensor()], "parameters": {"timeout": "1"}}, "parameters.timeout"),
        ({"inputs": [tensor()], "parameters": {"timeout": True}}, "parameters.timeout"),
        (
            {"inputs": [tensor()], "parameters": {"binary_data_output": 1}},
            "parameters.binary_data_output",
        ),
        ({"inputs": [tensor()], "outputs": {}}, "outputs"),
        ({"inputs": [tensor()], "outputs": [1]}, "outputs[0]"),
        ({"inputs": [tensor()], "outputs": [{}]}, "outputs[0].name"),
        ({"inputs": [tensor()], "outputs": [{"name": "a"}, {"name": "a"}]}, "outputs[1].name"),
        (
            {"inputs": [tensor()], "outputs": [{"name": "a", "parameters": {"binary_data": 1}}]},
            "outputs[0].parameters.binary_data",
        ),
        (
            {"inputs": [tensor()], "outputs": [{"name": "a", "parameters": {"classification": 3}}]},
            "outputs[0].parameters.classification",
        ),
    ],
)
def test_bad_values_name_the_field(document: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode(document)
    assert caught.value.field == field


@pytest.mark.parametrize("name", ["n" * 129, "n" * 1_000_000])
def test_long_names_are_refused_and_not_repeated(name: str) -> None:
    for document, field in (
        ({"inputs": [tensor(name=name)]}, "inputs[0].name"),
        ({"inputs": [tensor()], "outputs": [{"name": "a"}, {"name": name}]}, "outputs[1].name"),
    ):
        with pytest.raises(InvalidInput) as caught:
            decode(document)
        assert caught.value.field == field
        assert len(str(caught.value)) < 100
    assert list(decode({"inputs": [tensor(name="n" * 128)]}).inputs) == ["n" * 128]


def test_the_second_tensor_is_named_too() -> None:
    call = [tensor(), tensor(name="y", data=[1])]
    with pytest.raises(InvalidInput, match="1 elements") as caught:
        decode({"inputs": call})
    assert caught.value.field == "inputs[1].data"


def test_elements_of_bytes_have_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.domain.bytes_tensor.MAX_ELEMENTS", 3)
    texts = tensor(datatype="BYTES", shape=[3], data=["a"] * 3)
    assert decode({"inputs": [texts]}).inputs["x"].shape == (3,)
    for document, blob, field in (
        (texts | {"shape": [4], "data": ["a"] * 4}, b"", "inputs[0].data"),
        (
            {key: texts[key] for key in ("name", "datatype")}
            | {"shape": [4], "parameters": {"binary_data_size": 16}},
            bytes(16),
            "inputs[0].parameters.binary_data_size",
        ),
    ):
        with pytest.raises(PayloadTooLarge) as caught:
            decode({"inputs": [document]}, blob)
        assert caught.value.field == field


@pytest.mark.parametrize(
    "members",
    [
        b'"name":"x","shape":[1],"datatype":"FP32","data":[1],"more":{"a":1,"a":2}',
        b'"name":"x","shape":[1],"datatype":"FP32","parameters":null,"data":[1],"data":[2]',
        b'"name":"x","shape":[1],"datatype":"FP32","parameters":{},"data":[1],"z":[[[[1]]]]',
    ],
)
def test_members_beside_the_known_ones_are_looked_at(members: bytes) -> None:
    with pytest.raises(MalformedRequest, match=r"twice|deeper"):
        decode(b'{"inputs":[{%s}]}' % members, depth=6)


@pytest.mark.parametrize("count", [65, 100_000])
def test_too_many_tensors_are_too_large(count: int) -> None:
    with pytest.raises(PayloadTooLarge):
        decode({"inputs": [{}] * count})
    with pytest.raises(PayloadTooLarge):
        decode({"inputs": [tensor()], "outputs": [{}] * count})


BROKEN_JSON = {
    "empty": b"",
    "text": b"hello",
    "null": b"null",
    "array": b"[]",
    "deep": b'{"inputs":' + b"[" * 150_000,
    "deep and closed": b'{"a":' + b"[" * 150_000 + b"]" * 150_000 + b"}",
    "deep within orjson's limit": b'{"a":' + b"[" * 900 + b"]" * 900 + b"}",
    "huge integer": b'{"a":' + b"1" * 10_000_000 + b"}",
    "many names": b"{" + b",".join(b'"%d":0' % n for n in range(1_000_000)) + b"}",
    "lone surrogate": b'{"id":"\\ud800"}',
    "utf-16": '{"inputs":[]}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "NaN": b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}',
    "Infinity": b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[-Infinity]}]}',
    "beyond double": b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[1e999]}]}',
    "empty arrays": b"[" + b"[]," * 2_000_000 + b"[]]",
}


@pytest.mark.parametrize("body", BROKEN_JSON.values(), ids=BROKEN_JSON.keys())
def test_broken_json_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError):
        decode(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}],"id":"a","id":"b"}',
        b'{"inputs":[{"name":"x","shape":[1],"shape":[1],"datatype":"FP32","data":[1]}]}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"BYTES","data":["a:b"],"data":["c"]}]}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}],"z":{"a":1,"a":2}}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}],'
        b'"parameters":{"timeout":1,"timeout":2}}',
    ],
)
def test_names_that_stand_twice_are_refused(body: bytes) -> None:
    with pytest.raises(MalformedRequest, match="twice"):
        decode(body)


@pytest.mark.parametrize("text", ["a:b", '"quoted": yes', "back\\slash:", "::::", "{[", "é:"])
def test_colons_and_quotes_in_strings_are_no_names(text: str) -> None:
    call = decode({"inputs": [tensor(shape=[1], datatype="BYTES", data=[text])], "id": text})
    assert call.inputs["x"].tolist() == [text.encode()]
    assert call.form.id == text


def test_depth_is_counted_in_known_and_unknown_members() -> None:
    nested: Any = [1]
    for _ in range(6):
        nested = [nested]
    deep = {"inputs": [tensor(shape=[1] * 7, data=nested)]}
    decode(deep, depth=10)
    with pytest.raises(MalformedRequest, match="deeper"):
        decode(deep, depth=9)
    with pytest.raises(MalformedRequest, match="deeper"):
        decode({"inputs": [tensor()], "more": nested}, depth=7)


BINARY = {
    "name": "x",
    "shape": [2],
    "datatype": "FP32",
    "parameters": {"binary_data_size": 8},
}


@pytest.mark.parametrize(
    ("change", "blob", "field"),
    [
        ({}, bytes(4), "inputs[0].parameters.binary_data_size"),
        ({}, bytes(12), "inputs"),
        ({"shape": [3]}, bytes(8), "inputs[0].parameters.binary_data_size"),
        ({"shape": [2**62, 2]}, bytes(8), "inputs[0].parameters.binary_data_size"),
        (
            {"parameters": {"binary_data_size": -8}},
            bytes(8),
            "inputs[0].parameters.binary_data_size",
        ),
        (
            {"parameters": {"binary_data_size": "8"}},
            bytes(8),
            "inputs[0].parameters.binary_data_size",
        ),
        (
            {"parameters": {"binary_data_size": True}},
            bytes(8),
            "inputs[0].parameters.binary_data_size",
        ),
        (
            {"parameters": {"binary_data_size": 2**62}},
            bytes(8),
            "inputs[0].parameters.binary_data_size",
        ),
        ({"data": [1, 2]}, bytes(8), "inputs[0].data"),
        (
            {"datatype": "BYTES"},
            b"\x09\x00\x00\x00abcd",
            "inputs[0].parameters.binary_data_size",
        ),
    ],
)
def test_binary_that_does_not_fit_names_the_field(
    change: dict[str, Any], blob: bytes, field: str
) -> None:
    with pytest.raises(RequestError) as caught:
        decode({"inputs": [BINARY | change]}, blob)
    assert caught.value.field == field


@pytest.mark.parametrize("value", [b"-1", b"x", b"", b"1.5", b"9" * 30, b"1000", b"+5", b"\xb2"])
def test_a_wrong_header_length_is_refused(value: bytes) -> None:
    with pytest.raises(MalformedRequest) as caught:
        decode_infer(b'{"inputs":[]}', value, MODEL, LIMITS, 32)
    assert caught.value.field == "Inference-Header-Content-Length"


def test_a_raw_request_takes_its_tensor_from_the_model() -> None:
    body = np.arange(8, dtype=np.float32).tobytes()
    call = decode_infer(body, b"0", MODEL, LIMITS, 32)
    assert call.inputs["x"].shape == (2, 4)
    assert call.form == AnswerForm(binary=True)


def test_a_raw_request_needs_a_model_with_one_input() -> None:
    with pytest.raises(InvalidInput, match="one input"):
        decode_infer(b"", b"0", PAIR, LIMITS, 32)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["inputs", "outputs", "name", "shape", "datatype", "data", "parameters", "id"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(
    st.fixed_dictionaries(
        {"inputs": st.lists(st.fixed_dictionaries({"name": st.text()}) | JSON, max_size=2)},
        optional={"outputs": JSON, "parameters": JSON, "id": JSON},
    )
    | JSON,
    st.binary(max_size=12) | st.none(),
)
def test_any_document_is_read_or_refused(document: Any, blob: bytes | None) -> None:
    try:
        text = orjson.dumps(document)
    except TypeError:
        return
    with contextlib.suppress(RequestError):
        decode(text, blob)


@given(st.binary(max_size=100), st.binary(max_size=4) | st.none())
def test_any_bytes_are_read_or_refused(body: bytes, header_length: bytes | None) -> None:
    with pytest.raises(RequestError):
        decode_infer(body, header_length, PAIR, LIMITS, 32)
