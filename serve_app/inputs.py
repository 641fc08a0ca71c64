"""A request's inputs against the signature of its model."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from serve_app.config.ingress import RequestLimits
from serve_app.domain.inference import InferenceRequest, Layout
from serve_app.domain.routing import ModelRoute
from serve_app.domain.tensor import DATATYPES, Array, nbytes, shape_fits
from serve_app.errors import InvalidInput, PayloadTooLarge
from serve_app.waiting import ALONE


def lay_out(
    layout: Layout, model: ModelRoute, request: InferenceRequest, limits: RequestLimits
) -> None:
    """Checks a request and notes what every request of its layout has in common.

    Raises:
        InvalidInput: an input is not what the model declares, or an output is none of the model's.
        PayloadTooLarge: there are too many inputs or rows.
    """
    inputs = request.inputs
    rows, signature = _check(model, inputs, limits)
    outputs = _wanted(model, request.outputs) if request.outputs else None
    layout.rows, layout.signature, layout.outputs = rows, signature, outputs
    layout.size = sum([nbytes(array) for array in inputs.values()])
    layout.model = model


def _check(
    model: ModelRoute, inputs: Mapping[str, Array], limits: RequestLimits
) -> tuple[int, Hashable]:
    """Checks names, datatypes, shapes and rows; returns rows and the batching signature.

    The common case, rows that are all alike and nothing wrong, is decided in a few comparisons;
    everything else takes the long way, which also finds the words.
    """
    rows = 0
    for name, dtype, row_shape in model.row_inputs:
        array = inputs.get(name)
        if array is None or array.dtype is not dtype or array.shape[1:] != row_shape:
            break
        count = array.shape[0] if array.ndim else 0
        if rows and rows != count:
            break
        rows = count
    else:
        if len(inputs) == len(model.row_inputs) and 0 < rows <= limits.max_rows:
            return rows, ()
    return _check_slowly(model, inputs, limits)


def _check_slowly(
    model: ModelRoute, inputs: Mapping[str, Array], limits: RequestLimits
) -> tuple[int, Hashable]:
    if len(inputs) > limits.max_tensors:
        raise PayloadTooLarge(f"at most {limits.max_tensors} inputs", "inputs")
    rows = 1
    signature: list[tuple[int, ...]] = []
    for spec in model.inputs:
        array = inputs.get(spec.name)
        if array is None:
            raise InvalidInput(
                f"input {spec.name!r} is missing; this model takes "
                + ", ".join(repr(each.name) for each in model.inputs),
                "inputs",
            )
        if array.dtype != spec.dtype:
            raise InvalidInput(
                f"input {spec.name!r}: datatype {DATATYPES[array.dtype]} is not the declared "
                f"{spec.datatype}",
                f"inputs[{list(inputs).index(spec.name)}].datatype",
            )
        shape = array.shape
        if not shape_fits(shape, spec.shape):
            raise InvalidInput(
                f"input {spec.name!r}: shape {list(shape)} does not fit the declared "
                f"{list(spec.shape)}",
                f"inputs[{list(inputs).index(spec.name)}].shape",
            )
        signature.append(shape[1:])
    if len(inputs) != len(model.inputs):
        declared = {spec.name for spec in model.inputs}
        extra = next(name for name in inputs if name not in declared)
        raise InvalidInput(
            f"input {extra!r} is not an input of this model; it takes "
            + ", ".join(map(repr, sorted(declared))),
            f"inputs[{list(inputs).index(extra)}].name",
        )
    if not model.batchable:
        return 1, ALONE
    rows = _rows(inputs, limits)
    return rows, tuple(signature)


def _rows(inputs: Mapping[str, Array], limits: RequestLimits) -> int:
    sizes = {array.shape[0] for array in inputs.values()}
    if len(sizes) > 1:
        raise InvalidInput(
            f"all inputs must have the same number of rows, not {sorted(sizes)}",
            "inputs",
        )
    rows: int = sizes.pop()
    if rows == 0:
        raise InvalidInput("at least one row is needed", "inputs[0].shape")
    if rows > limits.max_rows:
        raise PayloadTooLarge(
            f"{rows} rows are more than the allowed {limits.max_rows}", "inputs[0].shape"
        )
    return rows


def _wanted(model: ModelRoute, names: tuple[str, ...]) -> tuple[str, ...]:
    """The requested outputs, checked."""
    declared = [spec.name for spec in model.outputs]
    for index, name in enumerate(names):
        if name not in declared:
            raise InvalidInput(
                f"output {name!r} is not an output of this model; it has "
                + ", ".join(map(repr, declared)),
                f"outputs[{index}].name",
            )
    return names
