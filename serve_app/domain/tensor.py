"""Tensors as the Open Inference Protocol knows them: datatype names, shapes, declared specs.

In memory a tensor is a numpy array. BYTES is an object array of `bytes`; BF16 uses the
`ml_dtypes` scalar type, so that arithmetic and conversion to torch stay possible.
Source of the names: Open Inference Protocol v2, "Tensor data types"; BF16 is Triton's addition.
"""

from __future__ import annotations

from typing import Annotated, Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

Array = NDArray[Any]

BYTES = "BYTES"

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    BYTES: np.dtype(np.object_),
}
"""Datatype name -> numpy dtype."""

DATATYPES: dict[np.dtype[Any], str] = {dtype: name for name, dtype in DTYPES.items()}
"""numpy dtype -> datatype name."""

NAME_PATTERN = r"^[A-Za-z0-9._-]{1,128}$"
"""What a model, version or tensor may be called: safe in labels, paths and application names."""

LONGEST_NAME = 128
"""Characters; a request's longer names are refused before anything repeats them."""

_ELEMENT_BYTES = 48
"""What Python takes for an element of a BYTES tensor beside its bytes: the object, and the pointer
to it."""

Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class TensorSpec(BaseModel):
    """What a model declares about one input or output: name, datatype, shape (-1 = any size)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    datatype: str
    shape: tuple[int, ...]

    @field_validator("datatype")
    @classmethod
    def _known_datatype(cls, value: str) -> str:
        if value not in DTYPES:
            raise ValueError(f"must be one of {', '.join(DTYPES)}")
        return value

    @field_validator("shape")
    @classmethod
    def _shape_dims(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(dim < -1 or dim == 0 for dim in value):
            raise ValueError("each dimension must be positive, or -1 for any size")
        return value

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype of this tensor."""
        return DTYPES[self.datatype]


def shape_fits(shape: tuple[int, ...], declared: tuple[int, ...]) -> bool:
    """Whether a concrete shape fits a declared one, where -1 stands for any size."""
    return len(shape) == len(declared) and all(
        want in (-1, have) for have, want in zip(shape, declared, strict=True)
    )


def nbytes(array: Array) -> int:
    """Memory that a tensor takes, in bytes; short elements of BYTES cost more than their length."""
    if array.dtype.hasobject:
        return sum(map(len, array.ravel().tolist())) + _ELEMENT_BYTES * array.size
    return int(array.nbytes)
