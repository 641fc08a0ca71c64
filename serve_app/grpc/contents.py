"""The data of one tensor between typed contents and numpy.

Packed floats and booleans are laid out in protobuf exactly as in numpy, so a tensor of them is
taken from, and put into, the serialised message as it is, instead of element by element.
"""

from __future__ import annotations

import numpy as np

from serve_app.domain.bytes_tensor import bytes_array, check_count
from serve_app.domain.raw_tensor import Buffer, Shape, to_raw
from serve_app.domain.tensor import BYTES, DTYPES, Array
from serve_app.errors import InvalidInput
from serve_app.grpc.generated.open_inference_pb2 import InferTensorContents
from serve_app.grpc.wire import LENGTH_DELIMITED, varint

FIELDS: dict[str, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
"""Datatype -> the field that holds its elements. FP16 and BF16 have none."""

_NUMBERS = {
    name: field.number for name, field in InferTensorContents.DESCRIPTOR.fields_by_name.items()
}
_PACKED = {
    datatype: bytes([_NUMBERS[FIELDS[datatype]] << 3 | LENGTH_DELIMITED])
    for datatype in ("BOOL", "FP32", "FP64")
}
"""Datatype -> the tag before its packed elements."""

_WIDE = {"int_contents": np.int32, "int64_contents": np.int64}
_WIDE |= {"uint_contents": np.uint32, "uint64_contents": np.uint64}


def array_from_contents(
    contents: InferTensorContents, datatype: str, shape: Shape, count: int, where: str
) -> Array:
    """Makes a tensor from typed contents.

    Args:
        contents: the message.
        datatype: one of `DTYPES`.
        shape: the checked shape.
        count: its number of elements.
        where: path of the tensor in the request, for errors.
    """
    name = FIELDS.get(datatype)
    if name is None:
        raise InvalidInput(
            f"{datatype} has no field in contents: send it in raw_input_contents",
            f"{where}.contents",
        )
    values = getattr(contents, name)
    field = f"{where}.contents.{name}"
    if len(contents.ListFields()) > bool(values):
        raise InvalidInput(f"{datatype} belongs in {name} and in no other field", field)
    if len(values) != count:
        raise InvalidInput(f"{len(values)} elements, but shape {list(shape)} needs {count}", field)
    if count == 0:
        return np.empty(shape, DTYPES[datatype])
    if datatype == BYTES:
        check_count(count, field)
        return bytes_array(values[:], shape)
    if datatype in _PACKED:
        return _from_packed(contents.SerializeToString(), datatype, shape, count)
    wide = np.fromiter(values, _WIDE[name], count)
    return _narrow(wide, datatype, field).reshape(shape)


def _from_packed(data: bytes, datatype: str, shape: Shape, count: int) -> Array:
    """Views the elements inside a serialised message; fields unknown to us may follow them."""
    dtype = DTYPES[datatype]
    return np.ndarray(shape, dtype, data, 1 + len(varint(count * dtype.itemsize)))


def _narrow(wide: Array, datatype: str, field: str) -> Array:
    """Elements of 8 and 16 bits travel in fields of 32."""
    dtype = DTYPES[datatype]
    if wide.dtype == dtype:
        return wide
    limits = np.iinfo(dtype)
    if wide.min() < limits.min or wide.max() > limits.max:
        raise InvalidInput(
            f"{datatype} must hold whole numbers from {limits.min} to {limits.max}", field
        )
    return wide.astype(dtype)


def contents_parts(array: Array, datatype: str) -> tuple[Buffer, ...]:
    """Serialises a tensor, of a datatype that has a field, as typed contents."""
    tag = _PACKED.get(datatype)
    if tag is not None:
        data = to_raw(array)
        return tag, varint(len(data)), data
    contents = InferTensorContents()
    getattr(contents, FIELDS[datatype]).extend(array.ravel().tolist())
    return (contents.SerializeToString(),)
