"""BYTES tensors in binary: identity on good input, an error and no allocation on bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.bytes_tensor import MAX_ELEMENTS, bytes_array, pack_bytes, unpack_bytes
from serve_app.domain.tensor import Array, nbytes
from serve_app.errors import InvalidInput, PayloadTooLarge


def objects(values: list[bytes]) -> Array:
    array: Array = np.empty(len(values), np.object_)
    array[:] = values
    return array


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_unpack_inverts_pack(values: list[bytes]) -> None:
    packed = pack_bytes(objects(values))
    for buffer in (packed, memoryview(packed)):
        back = unpack_bytes(buffer, len(values))
        assert back.dtype == np.object_
        assert back.tolist() == values
        assert all(type(value) is bytes for value in back.tolist())


def test_pack_is_row_major_and_little_endian() -> None:
    array = objects([b"a", b"", b"\xff\x00", b"dd"]).reshape(2, 2).T
    assert pack_bytes(array) == (
        b"\x01\x00\x00\x00a\x02\x00\x00\x00\xff\x00\x00\x00\x00\x00\x02\x00\x00\x00dd"
    )


@pytest.mark.parametrize(
    ("buffer", "count", "text"),
    [
        (b"", 1, "cannot hold 1 elements"),
        (b"\x00" * 8, 2**62, "cannot hold"),
        (b"\x05\x00\x00\x00abc", 1, "longer than its data"),
        (b"\xff\xff\xff\xff", 1, "longer than its data"),
        (b"\x02\x00\x00\x00ab\x00\x00", 2, "cannot hold|inside the length"),
        (b"\x03\x00\x00\x00abc\x00\x00", 2, "inside the length"),
        (b"\x01\x00\x00\x00ab", 1, "1 bytes follow"),
        (b"a", 0, "1 bytes follow"),
    ],
)
def test_bad_buffers_name_the_field(buffer: bytes, count: int, text: str) -> None:
    with pytest.raises(InvalidInput, match=text) as caught:
        unpack_bytes(buffer, count, "raw_input_contents[0]")
    assert caught.value.field == "raw_input_contents[0]"


@given(st.binary(max_size=64), st.integers(0, 8))
def test_random_bytes_give_elements_or_invalid_input(buffer: bytes, count: int) -> None:
    try:
        array = unpack_bytes(buffer, count)
    except InvalidInput:
        return
    assert pack_bytes(array) == buffer


@given(st.lists(st.binary(max_size=40), max_size=9), st.binary(max_size=9), st.binary(max_size=9))
def test_a_part_of_a_buffer(values: list[bytes], before: bytes, after: bytes) -> None:
    packed = pack_bytes(objects(values))
    whole = before + packed + after
    for buffer in (whole, memoryview(whole)):
        back = unpack_bytes(buffer, len(values), None, len(before), len(packed))
        assert back.tolist() == values


def test_more_elements_than_allowed_are_refused_before_they_are_split() -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        unpack_bytes(bytes(4 * (MAX_ELEMENTS + 1)), MAX_ELEMENTS + 1, "inputs[0]")
    assert caught.value.field == "inputs[0]"


def test_the_size_of_short_elements_is_what_they_cost() -> None:
    assert nbytes(bytes_array([b"", b"abc"], (1, 2))) == 3 + 2 * 48
    assert nbytes(np.zeros((2, 3), np.float32)) == 24
