"""Tensors between the wire and numpy: identity on good input, a named field on bad input."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serve_app.domain.raw_tensor import from_raw, to_raw
from serve_app.domain.tensor import BYTES, DTYPES, Array, TensorSpec
from serve_app.errors import InvalidInput
from serve_app.http.v2.tensor_codec import (
    array_from_json,
    array_from_raw,
    array_to_json,
    parse_shape,
)

JSON_TYPES = sorted(set(DTYPES) - {BYTES, "BF16"})
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
INTEGERS = {name: np.iinfo(dtype) for name, dtype in DTYPES.items() if dtype.kind in "iu"}


def plain(shape: tuple[int, ...], datatype: str) -> st.SearchStrategy[Array]:
    if datatype == "BF16":
        bits = hnp.arrays(np.uint16, shape)
        return bits.map(lambda array: array.view(ml_dtypes.bfloat16))
    return hnp.arrays(DTYPES[datatype], shape)


@st.composite
def arrays(draw: st.DrawFn, datatypes: list[str]) -> tuple[str, Array]:
    datatype = draw(st.sampled_from(datatypes))
    return datatype, draw(plain(draw(SHAPES), datatype))


@st.composite
def bytes_arrays(draw: st.DrawFn, element: st.SearchStrategy[bytes]) -> Array:
    shape = draw(SHAPES)
    values = draw(st.lists(element, min_size=math.prod(shape), max_size=math.prod(shape)))
    array: Array = np.empty(len(values), np.object_)
    array[:] = values
    return array.reshape(shape)


def from_json(data: Any, datatype: str, *shape: int) -> Array:
    return array_from_json(data, datatype, shape, math.prod(shape), "inputs[0]")


def same(left: Array, right: Array) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype.hasobject:
        return bool(left.ravel().tolist() == right.ravel().tolist())
    return left.tobytes() == right.tobytes()


def flat_json(array: Array) -> Any:
    return orjson.loads(orjson.dumps(array_to_json(array, "x"), option=orjson.OPT_SERIALIZE_NUMPY))


@given(arrays(JSON_TYPES), st.booleans())
def test_json_is_the_identity_for_finite_values(pair: tuple[str, Array], nested: bool) -> None:
    datatype, array = pair
    if array.dtype.kind == "f":
        array = np.nan_to_num(array, nan=0.0, posinf=1.0, neginf=-1.0)
    data = flat_json(array)
    if nested and array.ndim > 1 and array.size:
        data = orjson.loads(
            orjson.dumps(np.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY)
        )
    assert same(array_from_json(data, datatype, array.shape, array.size, "inputs[0]"), array)


@given(arrays(JSON_TYPES))
def test_json_answers_never_hold_nan_or_infinity(pair: tuple[str, Array]) -> None:
    _, array = pair
    text = orjson.dumps(array_to_json(array, "x"), option=orjson.OPT_SERIALIZE_NUMPY)
    if array.dtype.kind == "f":
        values = orjson.loads(text)
        assert [value is None for value in values] == (~np.isfinite(array.ravel())).tolist()
    assert b"nan" not in text.lower()
    assert b"inf" not in text.lower()


@given(bytes_arrays(st.text().map(str.encode)))
def test_json_is_the_identity_for_text(array: Array) -> None:
    assert same(array_from_json(flat_json(array), BYTES, array.shape, array.size, "x"), array)


@given(arrays(sorted(set(DTYPES) - {BYTES})), st.integers(0, 9))
def test_binary_is_the_identity(pair: tuple[str, Array], offset: int) -> None:
    datatype, array = pair
    blob = bytes(to_raw(array))
    assert blob == array.tobytes()
    body = bytes(offset) + blob + b"rest"
    back = from_raw(body, offset, len(blob), datatype, array.shape, array.size, "x")
    assert same(back, array)


@given(bytes_arrays(st.binary(max_size=20)), st.integers(0, 5))
def test_binary_is_the_identity_for_bytes(array: Array, offset: int) -> None:
    blob = bytes(to_raw(array))
    body = bytes(offset) + blob + b"rest"
    back = from_raw(body, offset, len(blob), BYTES, array.shape, array.size, "x")
    assert same(back, array)


def test_binary_is_a_view_of_the_body() -> None:
    body = np.arange(4, dtype=np.float32).tobytes()
    array = from_raw(body, 0, 16, "FP32", (2, 2), 4, "x")
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_binary_carries_what_json_cannot() -> None:
    for datatype in ("FP16", "FP32", "FP64", "BF16"):
        array = np.array([np.nan, np.inf, -np.inf, 5e-324, 0.0], DTYPES[datatype])
        blob = bytes(to_raw(array))
        assert same(from_raw(blob, 0, len(blob), datatype, (5,), 5, "x"), array)


def test_outputs_that_are_not_contiguous_are_written_in_row_major_order() -> None:
    array = np.arange(12, dtype=np.int32).reshape(3, 4).T
    assert flat_json(array) == array.ravel().tolist()
    assert bytes(to_raw(array)) == array.tobytes()
    assert flat_json(np.arange(10, dtype=np.float32)[::3]) == [0.0, 3.0, 6.0, 9.0]


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner),
    ),
    st.sampled_from(sorted(DTYPES)),
    SHAPES,
)
def test_any_json_is_a_tensor_or_invalid(data: Any, datatype: str, shape: tuple[int, ...]) -> None:
    count = math.prod(shape)
    try:
        array = array_from_json(data, datatype, shape, count, "inputs[0]")
    except InvalidInput as error:
        refused = error
    else:
        assert array.shape == shape
        assert array.dtype == DTYPES[datatype]
        return
    assert refused.field == "inputs[0].data"


@given(st.binary(max_size=64), st.sampled_from(sorted(DTYPES)), SHAPES)
def test_any_bytes_are_a_tensor_or_invalid(
    body: bytes, datatype: str, shape: tuple[int, ...]
) -> None:
    count = math.prod(shape)
    try:
        array = from_raw(body, 0, len(body), datatype, shape, count, "inputs[0]")
    except InvalidInput as error:
        refused = error
    else:
        assert array.shape == shape
        return
    assert (refused.field or "").startswith("inputs[0]")


@pytest.mark.parametrize("datatype", sorted(INTEGERS))
def test_whole_numbers_keep_their_range(datatype: str) -> None:
    limits = INTEGERS[datatype]
    assert from_json([limits.min, limits.max], datatype, 2).tolist() == [limits.min, limits.max]
    for value in (limits.min - 1, limits.max + 1):
        with pytest.raises(InvalidInput, match=datatype):
            from_json([value], datatype, 1)


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("INT32", 1.0),
        ("INT32", True),
        ("INT64", "1"),
        ("UINT8", -1),
        ("FP32", True),
        ("FP32", "1.0"),
        ("FP32", None),
        ("FP32", 1e39),
        ("FP16", 70000),
        ("FP64", {}),
        ("BOOL", 1),
        ("BOOL", "true"),
        ("BYTES", 1),
        ("BYTES", None),
        ("BF16", 1.0),
    ],
)
def test_wrong_values_name_the_field(datatype: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        from_json([value], datatype, 1)
    assert caught.value.field == "inputs[0].data"


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        ([1, 2, 3], (2, 2)),
        ([[1, 2], [3]], (2, 2)),
        ([[1, 2], 3], (2, 2)),
        ([[1, 2], [3, 4]], (4,)),
        ([[[1, 2]], [[3, 4]]], (2, 2)),
        ([[1, 2, 3, 4]], (2, 2)),
        ([[1, 2], [3, 4]], (2, 2, 1)),
        ([1, [2]], (2,)),
        ([[]], (1, 1)),
        ([], (1,)),
        (5, ()),
        ({"0": 1}, (1,)),
        (None, (1,)),
    ],
)
def test_data_must_have_its_shape(data: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput) as caught:
        from_json(data, "FP32", *shape)
    assert caught.value.field == "inputs[0].data"


@pytest.mark.parametrize(
    "shape",
    [None, "1", 1, {}, [-1], [1.0], [True], ["1"], [None], [1] * 17, [0, 2**62], [2**31, 2, 0]],
)
def test_wrong_shapes_name_the_field(shape: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_shape(shape, 16, "inputs[3]")
    assert caught.value.field == "inputs[3].shape"


def test_a_product_beyond_64_bits_is_just_a_wrong_count() -> None:
    shape, count = parse_shape([2**62, 2**62, 4], 16, "x")
    assert count == 2**126
    with pytest.raises(InvalidInput, match="elements"):
        array_from_json([1], "FP32", shape, count, "x")
    for datatype in ("FP32", BYTES):
        with pytest.raises(InvalidInput):
            from_raw(b"1234", 0, 4, datatype, shape, count, "x")


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\x01",
        b"\x02\x00\x00\x00a",
        b"\xff\xff\xff\xffa",
        b"\x01\x00\x00\x00ab",
        b"\x01\x00\x00\x00a\x00\x00",
    ],
)
def test_broken_lengths_of_bytes_are_refused(blob: bytes) -> None:
    with pytest.raises(InvalidInput):
        from_raw(blob, 0, len(blob), BYTES, (1,), 1, "x")


def test_binary_bool_holds_zero_and_one_only() -> None:
    assert from_raw(b"\x01\x00", 0, 2, "BOOL", (2,), 2, "x").tolist() == [True, False]
    with pytest.raises(InvalidInput):
        from_raw(b"\x01\x02", 0, 2, "BOOL", (2,), 2, "x")


def test_text_that_is_not_utf8_and_bf16_need_binary() -> None:
    array: Array = np.array([b"\xff"], np.object_)
    with pytest.raises(InvalidInput, match="binary_data"):
        array_to_json(array, "y")
    with pytest.raises(InvalidInput, match="binary_data"):
        array_to_json(np.zeros(1, ml_dtypes.bfloat16), "y")


@pytest.mark.parametrize(
    ("shape", "datatype", "body", "expected"),
    [
        ((-1, 2), "FP32", bytes(16), (2, 2)),
        ((-1, -1), "FP32", bytes(12), (1, 3)),
        ((-1, 3), "INT8", bytes(3), (1, 3)),
        ((4,), "INT8", bytes(4), (4,)),
        ((2, -1), "INT16", bytes(12), (2, 3)),
        ((-1,), BYTES, b"any bytes", (1,)),
        ((-1, 1), BYTES, b"any bytes", (1, 1)),
    ],
)
def test_a_raw_request_has_its_shape_from_its_length(
    shape: tuple[int, ...], datatype: str, body: bytes, expected: tuple[int, ...]
) -> None:
    spec = TensorSpec(name="x", datatype=datatype, shape=shape)
    array = array_from_raw(body, spec)
    assert array.shape == expected
    assert array.dtype == spec.dtype


@pytest.mark.parametrize(
    ("shape", "datatype", "body"),
    [
        ((-1, 2), "FP32", bytes(12)),
        ((-1, 2), "FP32", b""),
        ((4,), "INT8", bytes(8)),
        ((-1, -1, -1), "INT8", bytes(8)),
        ((3, -1, -1), "INT8", bytes(8)),
        ((-1, 2), BYTES, b"x"),
        ((-1, 1), "BOOL", b"\x07"),
    ],
)
def test_a_raw_request_that_does_not_fit_is_refused(
    shape: tuple[int, ...], datatype: str, body: bytes
) -> None:
    with pytest.raises(InvalidInput):
        array_from_raw(body, TensorSpec(name="x", datatype=datatype, shape=shape))
