"""ModelInfer messages: identity on good input, a named field on bad input, no fault of ours."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serve_app.config.ingress import RequestLimits
from serve_app.domain.inference import InferenceRequest, InferenceResult
from serve_app.domain.raw_tensor import to_raw
from serve_app.domain.tensor import BYTES, DTYPES, Array
from serve_app.errors import InvalidInput, ModelFailed, PayloadTooLarge, RequestError
from serve_app.grpc.answer import encode_response
from serve_app.grpc.contents import FIELDS, contents_parts
from serve_app.grpc.convert import decode_request
from serve_app.grpc.generated.open_inference_pb2 import (
    InferTensorContents,
    ModelInferRequest,
    ModelInferResponse,
)
from serve_app.grpc.wire import parse_request

LIMITS = RequestLimits(max_tensors=4, max_dims=5)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def arrays(draw: st.DrawFn) -> tuple[str, Array]:
    datatype = draw(st.sampled_from(sorted(DTYPES)))
    shape = draw(SHAPES)
    if datatype == BYTES:
        size = math.prod(shape)
        array: Array = np.empty(size, np.object_)
        array[:] = draw(st.lists(st.binary(max_size=9), min_size=size, max_size=size))
        return datatype, array.reshape(shape)
    if datatype == "BF16":
        return datatype, draw(hnp.arrays(np.uint16, shape)).view(ml_dtypes.bfloat16)
    return datatype, draw(hnp.arrays(DTYPES[datatype], shape))


def same(left: Array, right: Array) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype.hasobject:
        return bool(left.tolist() == right.tolist())
    return left.tobytes() == right.tobytes()  # NaN included, bit by bit


def raw_request(**tensors: tuple[str, Array]) -> ModelInferRequest:
    request = ModelInferRequest(model_name="m")
    for name, (datatype, array) in tensors.items():
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(bytes(to_raw(array)))
    return request


def typed_request(**tensors: tuple[str, Array]) -> ModelInferRequest:
    request = ModelInferRequest(model_name="m")
    for name, (datatype, array) in tensors.items():
        tensor = request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        tensor.contents.SetInParent()
        tensor.contents.MergeFromString(b"".join(contents_parts(array, datatype)))
    return request


def decode(message: ModelInferRequest, remaining_s: float | None = None) -> InferenceRequest:
    parsed, raw = parse_request(message.SerializeToString())
    return decode_request(parsed, raw, "id", remaining_s, LIMITS)


def fp32(*shape: int) -> tuple[str, Array]:
    return "FP32", np.arange(math.prod(shape), dtype=np.float32).reshape(shape)


@given(arrays(), arrays())
def test_raw_round_trip(first: tuple[str, Array], second: tuple[str, Array]) -> None:
    request = decode(raw_request(a=first, b=second))
    assert list(request.inputs) == ["a", "b"]
    assert same(request.inputs["a"], first[1])
    result = InferenceResult("m", "1", request.inputs)
    answer = ModelInferResponse.FromString(encode_response(result, "", typed=False))
    assert [tensor.datatype for tensor in answer.outputs] == [first[0], second[0]]
    assert list(answer.raw_output_contents) == [
        bytes(to_raw(first[1])),
        bytes(to_raw(second[1])),
    ]


@given(arrays().filter(lambda each: each[0] in FIELDS))
def test_typed_round_trip(tensor: tuple[str, Array]) -> None:
    sent = typed_request(x=tensor)
    request = decode(sent)
    assert same(request.inputs["x"], tensor[1])
    result = InferenceResult("m", "1", request.inputs)
    answer = ModelInferResponse.FromString(encode_response(result, "", typed=True))
    assert not answer.raw_output_contents
    assert answer.outputs[0].contents == sent.inputs[0].contents
    assert list(answer.outputs[0].shape) == list(tensor[1].shape)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_an_output_without_a_field_makes_the_answer_raw(datatype: str) -> None:
    outputs = {"a": np.zeros(2, np.float32), "b": np.ones(2, DTYPES[datatype])}
    message = encode_response(InferenceResult("m", "1", outputs), "", typed=True)
    answer = ModelInferResponse.FromString(message)
    assert len(answer.raw_output_contents) == 2
    assert not any(tensor.HasField("contents") for tensor in answer.outputs)


def test_answer_carries_names_and_id() -> None:
    result = InferenceResult("m", "7", {"y": np.zeros((1, 2), np.float32)})
    answer = ModelInferResponse.FromString(encode_response(result, "my id", typed=False))
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "7", "my id")


@pytest.mark.parametrize("identifier", ["", "é" * 200])
@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 1000])
def test_answer_is_what_protobuf_reads_and_writes(identifier: str, typed: bool, rows: int) -> None:
    outputs: dict[str, Array] = {
        "a": np.ones((rows, 40), np.float32),
        "b": np.full((rows, 1), -1, np.int64),
    }
    encoded = encode_response(InferenceResult("m" * 128, "7", outputs), identifier, typed=typed)
    expected = ModelInferResponse(model_name="m" * 128, model_version="7", id=identifier)
    for (name, array), datatype in zip(outputs.items(), ("FP32", "INT64"), strict=True):
        tensor = expected.outputs.add(name=name, datatype=datatype, shape=array.shape)
        if not typed:
            expected.raw_output_contents.append(array.tobytes())
        elif datatype == "FP32":
            tensor.contents.fp32_contents.extend(array.ravel().tolist())
        else:
            tensor.contents.int64_contents.extend(array.ravel().tolist())
        if typed:
            tensor.contents.SetInParent()
    assert ModelInferResponse.FromString(encoded) == expected


def test_the_bytes_that_are_kept_do_not_leak_between_answers() -> None:
    def tensor(name: str, *shape: int) -> ModelInferResponse:
        result = InferenceResult("m", "1", {name: np.zeros(shape, np.float32)})
        return ModelInferResponse.FromString(encode_response(result, name, typed=False))

    for _ in range(2):
        for name, shape in (("x", (1, 2)), ("y", (1, 2)), ("x", (2, 1)), ("x", (2,))):
            answer = tensor(name, *shape)
            assert (answer.id, answer.outputs[0].name) == (name, name)
            assert tuple(answer.outputs[0].shape) == shape


def test_output_of_no_datatype_is_the_models_fault() -> None:
    result = InferenceResult("m", "1", {"y": np.zeros(1, np.complex64)})
    with pytest.raises(ModelFailed):
        encode_response(result, "", typed=False)


def test_large_outputs_that_are_not_contiguous() -> None:
    array = np.arange(40_000, dtype=np.float32).reshape(200, 200).T
    answer = ModelInferResponse.FromString(
        encode_response(InferenceResult("m", "1", {"y": array}), "", typed=False)
    )
    assert answer.raw_output_contents[0] == array.tobytes()


def test_request_fields() -> None:
    message = raw_request(x=fp32(1, 4))
    message.model_version = "3"
    message.outputs.add(name="b")
    message.outputs.add(name="a")
    request = decode(message)
    assert (request.model, request.version) == ("m", "3")
    assert request.request_id == "id"
    assert request.outputs == ("b", "a")
    assert decode(raw_request(x=fp32(1))).version is None
    assert decode(raw_request(x=fp32(1))).outputs == ()


@pytest.mark.parametrize(
    ("parameter", "remaining_s", "expected"),
    [
        ({}, None, None),
        ({}, 0.0, 0.0),
        ({"int64_param": 2_000_000}, None, 2.0),
        ({"uint64_param": 2_000_000}, None, 2.0),
        ({"int64_param": 2_000_000}, 5.0, 2.0),
        ({"int64_param": 9_000_000}, 5.0, 5.0),
        ({"int64_param": 0}, 5.0, 5.0),
        ({"int64_param": 0}, None, None),
    ],
)
def test_the_smallest_deadline_wins(
    parameter: dict[str, Any], remaining_s: float | None, expected: float | None
) -> None:
    message = raw_request(x=fp32(1))
    for name, value in parameter.items():
        setattr(message.parameters["timeout"], name, value)
    assert decode(message, remaining_s).timeout_s == expected


Edit = Callable[[ModelInferRequest], object]


def shape(*dims: int) -> Edit:
    def edit(message: ModelInferRequest) -> None:
        message.inputs[0].shape[:] = dims

    return edit


def set_timeout(**value: Any) -> Edit:
    return lambda message: setattr(message.parameters["timeout"], *next(iter(value.items())))


BAD_RAW: list[tuple[Edit, str]] = [
    (lambda m: m.ClearField("inputs"), "inputs"),
    (lambda m: m.raw_input_contents.append(b""), "raw_input_contents"),
    (lambda m: m.inputs.add(name="z"), "raw_input_contents"),
    (lambda m: setattr(m.inputs[0], "datatype", ""), "inputs[0].datatype"),
    (lambda m: setattr(m.inputs[0], "datatype", "fp32"), "inputs[0].datatype"),
    (lambda m: setattr(m.inputs[0], "datatype", "STRING"), "inputs[0].datatype"),
    (lambda m: setattr(m.inputs[0], "datatype", "BOOL"), "raw_input_contents[0]"),
    (lambda m: setattr(m.inputs[0], "datatype", "BYTES"), "raw_input_contents[0]"),
    (lambda m: m.inputs[0].contents.fp32_contents.append(1), "inputs[0].contents"),
    (lambda m: m.inputs[0].contents.SetInParent(), "inputs[0].contents"),
    (shape(1, 3), "raw_input_contents[0]"),
    (shape(), "raw_input_contents[0]"),
    (shape(0), "raw_input_contents[0]"),
    (shape(-1, 4), "inputs[0].shape"),
    (shape(-2, -2), "inputs[0].shape"),
    (shape(2**63 - 1, 2**63 - 1), "raw_input_contents[0]"),
    (shape(2**62, 2**62, 2**62, 2**62), "raw_input_contents[0]"),
    (shape(2**32, 2**32, 4), "raw_input_contents[0]"),
    (shape(0, 2**62), "inputs[0].shape"),
    (shape(1, 1, 1, 1, 1, 4), "inputs[0].shape"),
    (set_timeout(int64_param=-1), "parameters.timeout"),
    (set_timeout(string_param="5"), "parameters.timeout"),
    (set_timeout(bool_param=True), "parameters.timeout"),
    (set_timeout(double_param=1.5), "parameters.timeout"),
    (lambda m: m.parameters["timeout"].SetInParent(), "parameters.timeout"),
    (lambda m: [m.outputs.add(name="y"), m.outputs.add(name="y")], "outputs[1].name"),
    (
        lambda m: setattr(m.outputs.add(name="y").parameters["classification"], "int64_param", 3),
        "outputs[0].parameters.classification",
    ),
]


@pytest.mark.parametrize(("edit", "field"), BAD_RAW)
def test_bad_requests_name_the_field(edit: Edit, field: str) -> None:
    message = raw_request(x=fp32(1, 4))
    edit(message)
    with pytest.raises(InvalidInput) as caught:
        decode(message)
    assert caught.value.field == field


def test_a_bool_is_zero_or_one() -> None:
    with pytest.raises(InvalidInput, match="bytes 0 and 1"):
        decode(raw_request(x=("BOOL", np.array([0, 1, 2], np.uint8))))


def test_an_input_stands_once() -> None:
    message = raw_request(x=fp32(1))
    message.MergeFrom(raw_request(x=fp32(1)))
    with pytest.raises(InvalidInput, match="twice"):
        decode(message)


def test_too_many_tensors() -> None:
    with pytest.raises(PayloadTooLarge):
        decode(raw_request(**{f"x{i}": fp32(1) for i in range(5)}))
    message = raw_request(x=fp32(1))
    for index in range(5):
        message.outputs.add(name=f"y{index}")
    with pytest.raises(PayloadTooLarge):
        decode(message)


CONTENTS: list[tuple[str, dict[str, list[Any]], str]] = [
    ("FP32", {"fp32_contents": [1.0]}, "inputs[0].contents.fp32_contents"),
    ("FP32", {"fp32_contents": [1.0, 2.0, 3.0]}, "inputs[0].contents.fp32_contents"),
    ("FP32", {"fp64_contents": [1.0, 2.0]}, "inputs[0].contents.fp32_contents"),
    (
        "FP32",
        {"fp32_contents": [1.0, 2.0], "int_contents": [1]},
        "inputs[0].contents.fp32_contents",
    ),
    ("FP32", {}, "inputs[0].contents.fp32_contents"),
    ("FP16", {"fp32_contents": [1.0, 2.0]}, "inputs[0].contents"),
    ("BF16", {"bytes_contents": [b"aaaa"]}, "inputs[0].contents"),
    ("INT8", {"int_contents": [0, 128]}, "inputs[0].contents.int_contents"),
    ("INT8", {"int_contents": [-129, 0]}, "inputs[0].contents.int_contents"),
    ("UINT16", {"uint_contents": [65536, 0]}, "inputs[0].contents.uint_contents"),
    ("UINT8", {"int_contents": [1, 2]}, "inputs[0].contents.uint_contents"),
    ("BYTES", {"bytes_contents": [b"a"]}, "inputs[0].contents.bytes_contents"),
    ("INT64", {"int_contents": [1, 2]}, "inputs[0].contents.int64_contents"),
]


@pytest.mark.parametrize(("datatype", "contents", "field"), CONTENTS)
def test_bad_contents_name_the_field(
    datatype: str, contents: dict[str, list[Any]], field: str
) -> None:
    message = ModelInferRequest(model_name="m")
    tensor = message.inputs.add(name="x", datatype=datatype, shape=[2])
    tensor.contents.CopyFrom(InferTensorContents(**contents))
    with pytest.raises(InvalidInput) as caught:
        decode(message)
    assert caught.value.field == field


def test_an_input_without_any_data() -> None:
    message = ModelInferRequest(model_name="m")
    message.inputs.add(name="x", datatype="FP32", shape=[1])
    with pytest.raises(InvalidInput, match="has no data"):
        decode(message)


def test_fields_unknown_to_us_do_not_shift_the_elements() -> None:
    contents = InferTensorContents.FromString(
        b"\xfa\x07\x05hello" + InferTensorContents(fp32_contents=[1.5, -2.5]).SerializeToString()
    )
    message = ModelInferRequest(model_name="m")
    message.inputs.add(name="x", datatype="FP32", shape=[2]).contents.CopyFrom(contents)
    assert decode(message).inputs["x"].tolist() == [1.5, -2.5]


def test_packed_and_unpacked_elements_are_the_same() -> None:
    unpacked = b"\x35\x00\x00\x80\x3f\x35\x00\x00\x00\x40"  # field 6 twice, 32 bits each
    message = ModelInferRequest(model_name="m")
    tensor = message.inputs.add(name="x", datatype="FP32", shape=[2])
    tensor.contents.CopyFrom(InferTensorContents.FromString(unpacked))
    assert decode(message).inputs["x"].tolist() == [1.0, 2.0]


INT64 = st.integers(-(2**63), 2**63 - 1)
SMALL = st.one_of(st.integers(-2, 6), INT64)
DATATYPE = st.sampled_from([*DTYPES, "", "FP8"])


def messages(strategy: dict[str, Any], kind: type[Message]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({}, optional=strategy).map(lambda fields: kind(**fields))


CONTENT = messages(
    {
        "bool_contents": st.lists(st.booleans(), max_size=6),
        "int_contents": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=6),
        "uint_contents": st.lists(st.integers(0, 2**32 - 1), max_size=6),
        "int64_contents": st.lists(INT64, max_size=6),
        "fp32_contents": st.lists(st.floats(width=32), max_size=6),
        "bytes_contents": st.lists(st.binary(max_size=4), max_size=6),
    },
    InferTensorContents,
)
INPUT = messages(
    {
        "name": st.text(max_size=3),
        "datatype": DATATYPE,
        "shape": st.lists(SMALL, max_size=6),
        "contents": CONTENT,
    },
    ModelInferRequest.InferInputTensor,
)
REQUEST = messages(
    {
        "model_name": st.text(max_size=3),
        "inputs": st.lists(INPUT, max_size=3),
        "raw_input_contents": st.lists(st.binary(max_size=32), max_size=3),
    },
    ModelInferRequest,
)


@given(REQUEST)
def test_any_message_is_read_or_is_the_clients_fault(message: ModelInferRequest) -> None:
    try:
        request = decode(message)
    except RequestError:
        return
    for array in request.inputs.values():
        assert array.dtype in DTYPES.values()


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_are_the_clients_fault(data: bytes) -> None:
    try:
        message, raw = parse_request(data)
        decode_request(message, raw, "id", None, LIMITS)
    except RequestError:
        pass
