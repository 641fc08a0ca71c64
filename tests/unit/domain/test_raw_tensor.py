"""Shapes and raw bytes: what both protocols share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from serve_app.domain.raw_tensor import datatype_of, element_count, from_raw, to_raw
from serve_app.domain.tensor import DTYPES
from serve_app.errors import InvalidInput, ModelFailed


@pytest.mark.parametrize(
    ("shape", "count"),
    [((), 1), ((0,), 0), ((2, 3), 6), ([2, 3], 6), ((2**62, 2**62, 4), 2**126), ((0, 2**31), 0)],
)
def test_elements_of_a_shape(shape: Any, count: int) -> None:
    assert element_count(shape, 16, "x") == count


@pytest.mark.parametrize("shape", [(-1,), (1.0,), (True,), ("1",), (1,) * 17, (0, 2**62)])
def test_wrong_shapes_name_the_field(shape: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        element_count(shape, 16, "inputs[3]")
    assert caught.value.field == "inputs[3].shape"


@pytest.mark.parametrize("datatype", sorted(set(DTYPES) - {"BOOL", "BYTES"}))
@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_a_part_of_a_buffer_is_not_copied(datatype: str, kind: Any) -> None:
    size = 4 * DTYPES[datatype].itemsize
    buffer = kind(bytes(3) + bytes(range(size)) + bytes(5))
    array = from_raw(buffer, 3, size, datatype, (2, 2), 4, "x")
    assert array.tobytes() == bytes(range(size))
    assert not array.flags.owndata
    assert not array.flags.writeable
    assert bytes(to_raw(array)) == bytes(range(size))


@pytest.mark.parametrize("datatype", sorted(set(DTYPES) - {"BOOL"}))
def test_a_wrong_size_names_the_field(datatype: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        from_raw(b"\1" * 33, 0, 33, datatype, (2,), 2, "inputs[0]")
    assert caught.value.field == "inputs[0]"


@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_only_the_part_must_be_booleans(kind: Any) -> None:
    buffer = kind(b"\7\0\1\7")
    assert from_raw(buffer, 1, 2, "BOOL", (2,), 2, "x").tolist() == [False, True]
    assert from_raw(buffer, 1, 0, "BOOL", (0,), 0, "x").tolist() == []
    with pytest.raises(InvalidInput, match="bytes 0 and 1"):
        from_raw(buffer, 2, 2, "BOOL", (2,), 2, "x")


def test_every_datatype_has_its_name_and_others_are_the_models_fault() -> None:
    for name, dtype in DTYPES.items():
        assert datatype_of("y", np.empty(1, dtype)) == name
    with pytest.raises(ModelFailed, match="'y'"):
        datatype_of("y", np.zeros(1, np.complex64))
