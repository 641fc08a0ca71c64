"""BYTES tensors: their array, and their binary form.

In binary each element is its length, 32 bits little-endian, then itself; the same in the binary
tensor extension of REST and in the raw contents of gRPC.
"""

from __future__ import annotations

from struct import Struct

import numpy as np

from serve_app.domain.tensor import Array
from serve_app.errors import InvalidInput, PayloadTooLarge

MAX_ELEMENTS = 1_000_000
"""In one tensor. An element takes some fifty bytes of memory beside its own and a Python object's
time, however short it is; in a request it takes four."""

_LENGTH = Struct("<I")


def bytes_array(elements: list[bytes], shape: tuple[int, ...]) -> Array:
    """The array of a BYTES tensor, from its elements in row-major order."""
    array: Array = np.empty(len(elements), np.object_)
    array[:] = elements
    return array.reshape(shape)


def check_count(count: int, field: str | None, max_elements: int | None = None) -> None:
    """Refuses more elements than one tensor may have."""
    limit = MAX_ELEMENTS if max_elements is None else max_elements
    if count > limit:
        raise PayloadTooLarge(f"{count} elements of BYTES are more than the allowed {limit}", field)


def pack_bytes(array: Array) -> bytes:
    """Joins the elements of a BYTES tensor in row-major order."""
    pack = _LENGTH.pack
    return b"".join(
        [part for element in array.ravel().tolist() for part in (pack(len(element)), element)]
    )


def unpack_bytes(
    buffer: bytes | memoryview,
    count: int,
    field: str | None = None,
    start: int = 0,
    size: int | None = None,
    max_elements: int | None = None,
) -> Array:
    """Splits a part of a buffer into `count` elements: a flat object array of `bytes`.

    Nothing is allocated for elements that it cannot hold.

    Args:
        buffer: holds the elements.
        count: how many there must be.
        field: the part of the request that an error names.
        start: where the first one begins.
        size: how many bytes all of them have; None: up to the buffer's end.
        max_elements: how many there may be; None: as many as in a tensor of a request.

    Raises:
        InvalidInput: the part does not hold exactly `count` elements.
        PayloadTooLarge: there are more than a tensor may have.
    """
    if size is None:
        size = len(buffer) - start
    if count * _LENGTH.size > size:
        raise InvalidInput(f"{size} bytes cannot hold {count} elements of BYTES", field)
    check_count(count, field, max_elements)
    unpack = _LENGTH.unpack_from
    elements: list[bytes] = []
    end = start + size
    stop = start
    for _ in range(count):
        begin = stop + 4
        if begin > end:
            raise InvalidInput("BYTES data ends inside the length of an element", field)
        stop = begin + unpack(buffer, stop)[0]
        if stop > end:
            raise InvalidInput("an element of BYTES is longer than its data", field)
        element = buffer[begin:stop]
        elements.append(element if isinstance(element, bytes) else element.tobytes())
    if stop != end:
        raise InvalidInput(f"{end - stop} bytes follow the last element of BYTES", field)
    return bytes_array(elements, (count,))
