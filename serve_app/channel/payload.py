"""The payload of a frame: tensors one after the other, as raw bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from serve_app.domain.bytes_tensor import unpack_bytes
from serve_app.domain.raw_tensor import Buffer, datatype_of, element_count, from_raw, to_raw
from serve_app.domain.tensor import BYTES, DTYPES, Array
from serve_app.errors import ServeAppError

ALIGNMENT = 16
ZEROS = bytes(ALIGNMENT)
_MAX_DIMS = 32


class FrameError(Exception):
    """The bytes are not what this protocol sends; whoever sent them is not to be trusted."""


class TensorHeader(msgspec.Struct, array_like=True, gc=False):
    """One tensor of the payload, in its order there."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    size: int
    """In bytes, without padding."""


def padded(size: int) -> int:
    """What a tensor of this size takes in a payload."""
    return size + -size % ALIGNMENT


def pack(arrays: Mapping[str, Array]) -> tuple[tuple[TensorHeader, ...], list[Buffer], int]:
    """Headers, payload and the payload's length."""
    headers: list[TensorHeader] = []
    payload: list[Buffer] = []
    total = 0
    for name, array in arrays.items():
        raw = to_raw(array)
        size = len(raw)
        headers.append(TensorHeader(name, datatype_of(name, array), array.shape, size))
        padding = -size % ALIGNMENT
        payload.append(raw)
        if padding:
            payload.append(ZEROS[:padding])
        total += size + padding
    return tuple(headers), payload, total


def fill(view: memoryview, payload: Sequence[Buffer]) -> None:
    """Writes a payload into shared memory."""
    start = 0
    for part in payload:
        stop = start + len(part)
        view[start:stop] = part
        start = stop


def unpack(tensors: tuple[TensorHeader, ...], payload: memoryview) -> dict[str, Array]:
    """The tensors of a payload as read-only views into it; BYTES as elements of their own.

    Raises:
        FrameError: headers and payload contradict each other.
    """
    arrays: dict[str, Array] = {}
    start = 0
    for tensor in tensors:
        size = tensor.size
        if tensor.datatype not in DTYPES or size < 0 or start + size > len(payload):
            raise FrameError(f"tensor {tensor.name!r} is of no known type, or longer than its data")
        try:
            arrays[tensor.name] = _array(tensor, payload, start)
        except (ServeAppError, ValueError) as exc:
            raise FrameError(f"tensor {tensor.name!r}: {exc}") from exc
        start += padded(size)
    if start != len(payload) or len(arrays) != len(tensors):
        raise FrameError("the tensors are not the payload")
    return arrays


def _array(tensor: TensorHeader, payload: memoryview, start: int) -> Array:
    shape = tensor.shape
    count = element_count(shape, _MAX_DIMS, "")
    if tensor.datatype == BYTES:
        # A batch may hold more elements than one request: only its length is a bound here.
        elements = unpack_bytes(payload, count, None, start, tensor.size, max_elements=count)
        return np.reshape(elements, shape)
    return from_raw(payload, start, tensor.size, tensor.datatype, shape, count, "")
