"""What all torch predictors share: arrays to tensors and back, threads, results by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import torch

from serve_app.domain.tensor import Array, TensorSpec
from serve_app.errors import ModelFailed, PredictorError

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def use_threads(threads: int) -> None:
    """Limits torch to so many threads; call it in the thread that computes."""
    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != 1:
        try:
            torch.set_num_interop_threads(1)
        except RuntimeError:  # may be set only before torch's first parallel work
            return


def to_tensor(array: Array, device: torch.device) -> torch.Tensor:
    """Copies an array into a tensor.

    A copy on purpose: networks may work in place (`nn.ReLU(inplace=True)`), and the array is
    needed again if the batch has to be split. Next to the network's own cost it is nothing.
    """
    if array.dtype == _BFLOAT16:
        bits = torch.from_numpy(array.view(np.int16).copy())
        return bits.view(torch.bfloat16).to(device)
    try:
        return torch.from_numpy(array.copy()).to(device)
    except TypeError as exc:
        raise PredictorError(f"torch has no tensors of dtype {array.dtype}") from exc


def to_array(tensor: torch.Tensor) -> Array:
    """A tensor's values as an array; without a copy if they are on the CPU."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        bits: Array = tensor.contiguous().view(torch.int16).numpy()
        return bits.view(_BFLOAT16)
    array: Array = tensor.numpy()
    return array


def named_outputs(
    result: object, specs: tuple[TensorSpec, ...], keys: Mapping[str, str]
) -> dict[str, Array]:
    """Gives what a network returned the names of the declared outputs.

    Args:
        result: a tensor, a sequence of tensors in the declared order, or a mapping by name.
        specs: the declared outputs.
        keys: declared name -> key in a returned mapping, where they differ.

    Raises:
        ModelFailed: the result is something else, or lacks an output.
    """
    if isinstance(result, Mapping):
        found = {spec.name: result.get(keys.get(spec.name, spec.name)) for spec in specs}
        for name, value in found.items():
            if value is None:
                raise ModelFailed(f"output {name!r} is not among {', '.join(map(str, result))}")
        values: Sequence[Any] = list(found.values())
    elif isinstance(result, list | tuple):
        values = result
    else:
        values = [result]
    if len(values) != len(specs):
        raise ModelFailed(f"the network returned {len(values)} tensors for {len(specs)} outputs")
    for value in values:
        if not isinstance(value, torch.Tensor):
            raise ModelFailed(f"the network returned a {type(value).__name__}, not a tensor")
    return {spec.name: to_array(value) for spec, value in zip(specs, values, strict=True)}
