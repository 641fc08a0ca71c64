"""One tensor between raw bytes and numpy, the same for HTTP and gRPC.

Raw means little-endian and row-major without gaps. Every check comes before the allocation that it
guards.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from serve_app.domain.bytes_tensor import pack_bytes, unpack_bytes
from serve_app.domain.tensor import BYTES, DATATYPES, DTYPES, Array
from serve_app.errors import InvalidInput, ModelFailed

Buffer = bytes | memoryview
Shape = tuple[int, ...]

_MAX_EMPTY_SPAN = 2**31
_LARGE = 32 * 1024
"""Bytes from which a view costs less than a copy."""


def element_count(shape: Sequence[Any], max_dims: int, where: str) -> int:
    """Checks a shape; returns its number of elements, which may be any whole number.

    Args:
        shape: as the client sent it.
        max_dims: how many of them are allowed.
        where: path of the tensor in the request, for errors.
    """
    if len(shape) > max_dims:
        raise InvalidInput(f"shape has more than {max_dims} dimensions", f"{where}.shape")
    count = 1
    for dim in shape:
        if type(dim) is not int or dim < 0:
            raise InvalidInput("shape must hold whole numbers, none negative", f"{where}.shape")
        count *= dim
    # numpy refuses some shapes even if a zero makes them empty.
    if count == 0 and prod([dim or 1 for dim in shape]) > _MAX_EMPTY_SPAN:
        raise InvalidInput("shape is too large", f"{where}.shape")
    return count


def from_raw(
    buffer: Buffer, start: int, size: int, datatype: str, shape: Shape, count: int, field: str
) -> Array:
    """Makes a tensor from a part of a buffer without a copy: read-only, and not always aligned.

    Args:
        buffer: holds the tensor.
        start: where it begins.
        size: how many bytes it has, which are known to be there.
        datatype: one of `DTYPES`.
        shape: the checked shape.
        count: its number of elements.
        field: what an error names.
    """
    if datatype == BYTES:
        return unpack_bytes(buffer, count, field, start, size).reshape(shape)
    dtype = DTYPES[datatype]
    if size != count * dtype.itemsize:
        raise InvalidInput(
            f"{size} bytes of raw data, but shape {list(shape)} of {datatype} needs "
            f"{count * dtype.itemsize}",
            field,
        )
    if datatype == "BOOL" and np.ndarray(count, np.uint8, buffer, start).max(initial=0) > 1:
        raise InvalidInput("raw data of BOOL must hold bytes 0 and 1", field)
    return np.ndarray(shape, dtype, buffer, start)


def to_raw(array: Array) -> Buffer:
    """The tensor as raw bytes; a large one without a copy."""
    if array.dtype.hasobject:
        return pack_bytes(array)
    return array.tobytes() if array.nbytes < _LARGE else array.ravel().view(np.uint8).data


def datatype_of(name: str, array: Array) -> str:
    """The datatype of an output.

    Raises:
        ModelFailed: the protocol has none for it.
    """
    datatype = DATATYPES.get(array.dtype)
    if datatype is None:
        raise ModelFailed(f"output {name!r} has no datatype of the protocol: {array.dtype}")
    return datatype
