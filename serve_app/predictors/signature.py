"""What a model declares, held against what comes out of it and what its example says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from serve_app.domain.tensor import BYTES, Array, TensorSpec, shape_fits
from serve_app.errors import ModelFailed, PredictorError

_EXAMPLE_KINDS = {"b": "b", "u": "iu", "i": "iu", "f": "iuf", "V": "iuf"}
"""Kind of a declared dtype -> kinds of example values it takes; V is bfloat16."""


def checked_outputs(
    outputs: Mapping[str, Array], specs: tuple[TensorSpec, ...], rows: int | None
) -> dict[str, Array]:
    """Makes sure that a model keeps its word; casts within a kind, such as FP64 to FP32.

    Args:
        outputs: what the predictor returned.
        specs: the declared outputs.
        rows: how many rows each output must have; None for a model without a batch dimension.

    Returns:
        The outputs, in the declared order and with the declared dtypes.

    Raises:
        ModelFailed: a name, dtype, shape or number of rows is not the declared one.
    """
    if not isinstance(outputs, Mapping) or len(outputs) != len(specs):
        raise ModelFailed(f"it returned {_names(outputs)}, but declares {_spec_names(specs)}")
    checked = {}
    for spec in specs:
        array = outputs.get(spec.name)
        if array is None:
            raise ModelFailed(f"it returned {_names(outputs)}, but declares {_spec_names(specs)}")
        checked[spec.name] = _checked_output(array, spec, rows)
    return checked


def _checked_output(array: Array, spec: TensorSpec, rows: int | None) -> Array:
    if not isinstance(array, np.ndarray):
        raise ModelFailed(f"output {spec.name!r} is a {type(array).__name__}, not a numpy array")
    if not shape_fits(array.shape, spec.shape):
        raise ModelFailed(
            f"output {spec.name!r} has shape {list(array.shape)}, declared is {list(spec.shape)}"
        )
    if rows is not None and array.shape[0] != rows:
        raise ModelFailed(
            f"output {spec.name!r} has {array.shape[0]} rows for {rows} rows of input"
        )
    if spec.datatype == BYTES:
        return _as_bytes(array, spec.name)
    if array.dtype == spec.dtype:
        return array
    if array.dtype.hasobject or not np.can_cast(array.dtype, spec.dtype, "same_kind"):
        raise ModelFailed(
            f"output {spec.name!r} has dtype {array.dtype}, which is no {spec.datatype}"
        )
    return array.astype(spec.dtype)


def _as_bytes(array: Array, name: str) -> Array:
    """Text and bytes in any of numpy's forms become an object array of `bytes`."""
    elements = array.ravel().tolist()
    if array.dtype.hasobject and all(type(element) is bytes for element in elements):
        return array
    if not all(isinstance(element, str | bytes) for element in elements):
        raise ModelFailed(f"output {name!r} holds values that are neither bytes nor text")
    return _bytes_array(elements, array.shape)


def _bytes_array(elements: list[Any], shape: tuple[int, ...]) -> Array:
    flat = np.empty(len(elements), dtype=np.object_)
    flat[:] = [item.encode() if isinstance(item, str) else item for item in elements]
    return flat.reshape(shape)


def example_arrays(
    example: Mapping[str, Any], specs: tuple[TensorSpec, ...]
) -> tuple[dict[str, Array], int]:
    """Turns the configured warm-up example into input arrays.

    Returns:
        The arrays in the declared order, and the number of rows (of the first input).

    Raises:
        PredictorError: an input is missing or not declared, or a value does not fit its input.
    """
    names = [spec.name for spec in specs]
    for name in example:
        if name not in names:
            raise PredictorError(f"warm_up.{name}: no such input. Declared: {', '.join(names)}.")
    arrays = {}
    for spec in specs:
        if spec.name not in example:
            raise PredictorError(f"warm_up.{spec.name}: missing, and the model declares it")
        arrays[spec.name] = _example_array(example[spec.name], spec)
    first = arrays[names[0]]
    return arrays, first.shape[0] if first.ndim else 1


def _example_array(value: Any, spec: TensorSpec) -> Array:
    where = f"warm_up.{spec.name}"
    if isinstance(value, np.ndarray):
        value = value.tolist()
    try:
        raw = np.array(value, dtype=np.object_) if spec.datatype == BYTES else np.array(value)
    except ValueError as exc:
        raise PredictorError(f"{where}: rows of unequal length") from exc
    if not shape_fits(raw.shape, spec.shape) or 0 in raw.shape:
        raise PredictorError(
            f"{where}: shape {list(raw.shape)} does not fit the declared {list(spec.shape)}"
        )
    if spec.datatype == BYTES:
        elements = raw.ravel().tolist()
        if not all(isinstance(element, str | bytes) for element in elements):
            raise PredictorError(f"{where}: every value must be text")
        return _bytes_array(elements, raw.shape)
    if raw.dtype.kind not in _EXAMPLE_KINDS[spec.dtype.kind]:
        raise PredictorError(f"{where}: values of kind {raw.dtype} are no {spec.datatype}")
    if spec.dtype.kind in "iu":
        limits = np.iinfo(spec.dtype)
        if raw.min() < limits.min or raw.max() > limits.max:
            raise PredictorError(f"{where}: a value is out of range for {spec.datatype}")
    return raw.astype(spec.dtype)


def _names(outputs: object) -> str:
    if isinstance(outputs, Mapping):
        return ", ".join(map(str, outputs)) or "nothing"
    return f"a {type(outputs).__name__}"


def _spec_names(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(spec.name for spec in specs)
