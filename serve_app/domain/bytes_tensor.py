"""The binary form of BYTES tensors: each element is its length, 32 bits little-endian, then itself.

The same in the binary tensor extension of REST and in the raw contents of gRPC.
"""

from __future__ import annotations

from struct import Struct

import numpy as np

from serve_app.domain.tensor import Array
from serve_app.errors import InvalidInput

_LENGTH = Struct("<I")


def pack_bytes(array: Array) -> bytes:
    """Joins the elements of a BYTES tensor in row-major order."""
    pack = _LENGTH.pack
    return b"".join(
        [part for element in array.ravel().tolist() for part in (pack(len(element)), element)]
    )


def unpack_bytes(buffer: bytes | memoryview, count: int, field: str | None = None) -> Array:
    """Splits a buffer into `count` elements: a flat object array of `bytes`.

    Nothing is allocated for elements that the buffer cannot hold.

    Args:
        buffer: exactly the elements, with nothing after them.
        count: how many there must be.
        field: the part of the request that an error names.

    Raises:
        InvalidInput: the buffer does not hold exactly `count` elements.
    """
    end = len(buffer)
    if count * _LENGTH.size > end:
        raise InvalidInput(f"{end} bytes cannot hold {count} elements of BYTES", field)
    unpack = _LENGTH.unpack_from
    elements: list[bytes] = []
    stop = 0
    for _ in range(count):
        start = stop + 4
        if start > end:
            raise InvalidInput("BYTES data ends inside the length of an element", field)
        stop = start + unpack(buffer, stop)[0]
        if stop > end:
            raise InvalidInput("an element of BYTES is longer than its data", field)
        elements.append(bytes(buffer[start:stop]))
    if stop != end:
        raise InvalidInput(f"{end - stop} bytes follow the last element of BYTES", field)
    array: Array = np.empty(count, np.object_)
    array[:] = elements
    return array
