"""One tensor between JSON and numpy, and the input of a raw request.

Pure functions. Every check comes before the allocation that it guards, and every error names the
field. Binary data is as raw as that of gRPC: see `serve_app.domain.raw_tensor`.
"""

from __future__ import annotations

import struct
from itertools import chain
from typing import Any

import numpy as np

from serve_app.domain.bytes_tensor import bytes_array, check_count
from serve_app.domain.raw_tensor import Buffer, Shape, element_count, from_raw
from serve_app.domain.tensor import BYTES, DTYPES, Array, TensorSpec
from serve_app.errors import InvalidInput

_NUMBERS: frozenset[type] = frozenset({float, int})
_WHOLE: frozenset[type] = frozenset({int})
_TEXT: frozenset[type] = frozenset({str})
_FORMATS: dict[str, tuple[str, frozenset[type], str]] = {
    "BOOL": ("?", frozenset({bool}), "true and false"),
    "UINT8": ("B", _WHOLE, "whole numbers from 0 to 255"),
    "UINT16": ("H", _WHOLE, "whole numbers from 0 to 65535"),
    "UINT32": ("I", _WHOLE, "whole numbers of 32 bits, not negative"),
    "UINT64": ("Q", _WHOLE, "whole numbers of 64 bits, not negative"),
    "INT8": ("b", _WHOLE, "whole numbers from -128 to 127"),
    "INT16": ("h", _WHOLE, "whole numbers from -32768 to 32767"),
    "INT32": ("i", _WHOLE, "whole numbers of 32 bits"),
    "INT64": ("q", _WHOLE, "whole numbers of 64 bits"),
    "FP16": ("e", _NUMBERS, "numbers within the range of FP16"),
    "FP32": ("f", _NUMBERS, "numbers within the range of FP32"),
    "FP64": ("d", _NUMBERS, "numbers"),
}
"""Datatype -> struct format, the JSON types that it takes, and how to say so."""


def parse_shape(value: object, max_dims: int, where: str) -> tuple[Shape, int]:
    """Checks a shape; returns it with its number of elements, which may be any whole number."""
    if type(value) is not list:
        raise InvalidInput("shape must be an array of whole numbers", f"{where}.shape")
    count = element_count(value, max_dims, where)
    return tuple(value), count


def array_from_json(
    data: Any, datatype: str, shape: Shape, count: int, where: str, *, literals: bool = True
) -> Array:
    """Makes a tensor from JSON, flat or nested as its shape.

    Args:
        data: what stands in `data`.
        datatype: one of `DTYPES`.
        shape: the checked shape.
        count: its number of elements.
        where: path of the tensor in the request, for errors.
        literals: whether `true` or `false` may be among the data. Everything else that is no number
            is refused when numbers are packed; looking at the type of each takes as long as that.
    """
    if type(data) is not list:
        raise InvalidInput("data must be an array", f"{where}.data")
    if data and type(data[0]) is list:
        data = _flatten(data, shape, where)
    if len(data) != count:
        raise InvalidInput(
            f"data has {len(data)} elements, shape {list(shape)} needs {count}", f"{where}.data"
        )
    if datatype == BYTES:
        return _bytes_from_json(data, shape, where)
    entry = _FORMATS.get(datatype)
    if entry is None:
        raise InvalidInput(
            f"{datatype} cannot be written in JSON: send it as binary data", f"{where}.data"
        )
    code, types, expected = entry
    if (literals or code == "?") and not types.issuperset(map(type, data)):
        raise InvalidInput(f"data of {datatype} must hold {expected}", f"{where}.data")
    try:
        packed = struct.pack(f"<{count}{code}", *data)
    except (struct.error, OverflowError) as exc:
        raise InvalidInput(f"data of {datatype} must hold {expected}", f"{where}.data") from exc
    return np.ndarray(shape, DTYPES[datatype], packed)


def _flatten(data: list[Any], shape: Shape, where: str) -> list[Any]:
    """Row-major elements of nested arrays, which must have exactly the given shape."""
    level = data
    fits = len(shape) > 1 and len(level) == shape[0]
    for dim in shape[1:]:
        if not fits or set(map(type, level)) != {list} or set(map(len, level)) != {dim}:
            raise InvalidInput(
                f"nested data does not have the shape {list(shape)}", f"{where}.data"
            )
        level = level[0] if len(level) == 1 else list(chain.from_iterable(level))
    return level


def _bytes_from_json(data: list[Any], shape: Shape, where: str) -> Array:
    check_count(len(data), f"{where}.data")
    if not _TEXT.issuperset(map(type, data)):
        raise InvalidInput("data of BYTES must hold strings", f"{where}.data")
    return bytes_array([value.encode() for value in data], shape)


def array_from_raw(body: Buffer, spec: TensorSpec) -> Array:
    """Makes the only input of a model from a body that is nothing but its bytes.

    One variable dimension follows from the number of bytes. If the row dimension and another one
    are variable, there is one row. BYTES is one element, without a length before it.
    """
    variable = [axis for axis, dim in enumerate(spec.shape) if dim == -1]
    shape = list(spec.shape)
    if spec.datatype == BYTES:
        if any(dim not in (-1, 1) for dim in shape):
            raise InvalidInput("a raw request for BYTES needs a model that takes one element")
        return bytes_array([bytes(body)], (1,) * len(shape))
    if len(variable) == 2 and variable[0] == 0:
        shape[0] = 1
        del variable[0]
    if len(variable) > 1:
        raise InvalidInput(
            f"the shape {list(spec.shape)} cannot be told from the number of bytes: "
            "a raw request needs at most one variable dimension"
        )
    fixed = spec.dtype.itemsize
    for dim in shape:
        fixed *= 1 if dim == -1 else dim
    if len(body) % fixed or not body or (not variable and len(body) != fixed):
        raise InvalidInput(f"a body of {len(body)} bytes does not fit the shape {shape}")
    if variable:
        shape[variable[0]] = len(body) // fixed
    count = len(body) // spec.dtype.itemsize
    return from_raw(body, 0, len(body), spec.datatype, tuple(shape), count, "body")


def array_to_json(array: Array, name: str) -> Any:
    """What orjson writes as `data`: flat, row-major; NaN and infinities become null."""
    if array.dtype == DTYPES[BYTES]:
        try:
            return [value.decode() for value in array.ravel().tolist()]
        except UnicodeDecodeError as exc:
            raise InvalidInput(
                f"output {name!r} is not UTF-8 text: ask for it with binary_data", "outputs"
            ) from exc
    if array.dtype == DTYPES["BF16"]:
        raise InvalidInput(
            f"output {name!r} is BF16, which JSON cannot carry: ask for it with binary_data",
            "outputs",
        )
    return array.ravel()
