"""PyTorch networks from safetensors or a state dict."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import nn

from serve_app.domain.tensor import Array
from serve_app.errors import PredictorError
from serve_app.predictors.artifact_file import artifact_file
from serve_app.predictors.predictor import LoadContext, Predictor
from serve_app.predictors.target import construct, import_class
from serve_app.predictors.torch_tensor import named_outputs, to_tensor, use_threads

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


class TorchModule(Predictor):
    """A network by its import path, with weights from the artifact.

    Args:
        network: ``_target_``, the import path of an `nn.Module`, and its arguments.
        file: the weights' path inside an artifact that is a folder.
        state_key: where the state dict lies inside a checkpoint that holds more than it.
        arguments: input -> name of a keyword argument of `forward`. Without it, the declared
            inputs are positional arguments in their order.
        results: output -> key, for a network that returns a mapping with other names.
    """

    def __init__(
        self,
        network: Mapping[str, Any],
        file: str | None = None,
        state_key: str | None = None,
        arguments: Mapping[str, str] | None = None,
        results: Mapping[str, str] | None = None,
    ) -> None:
        if not isinstance(network, Mapping) or not isinstance(network.get("_target_"), str):
            raise PredictorError("network: needs _target_, the import path of an nn.Module")
        self._target: str = network["_target_"]
        self._arguments = {key: value for key, value in network.items() if key != "_target_"}
        self._file, self._state_key = file, state_key
        self._keywords, self._results = dict(arguments or {}), dict(results or {})
        self._metadata: dict[str, str] = {}
        self._network: nn.Module | None = None

    def load(self, context: LoadContext) -> None:
        """Builds the network and loads its weights, strictly."""
        use_threads(context.threads)
        self._specs, self._outputs = context.inputs, context.outputs
        declared = [spec.name for spec in context.inputs]
        if self._keywords and sorted(self._keywords) != sorted(declared):
            raise PredictorError(f"arguments: must name the inputs {', '.join(declared)}")
        self._device = torch.device(context.device)
        path = artifact_file(context, SUFFIXES, self._file)
        network = construct(import_class(self._target, nn.Module), self._arguments)
        state = self._read_safetensors(path) if path.suffix == SUFFIXES[0] else self._unpickle(path)
        try:
            network.load_state_dict(state, strict=True)
        except RuntimeError as exc:
            raise PredictorError(f"{path.name} does not fit {self._target}: {exc}") from exc
        self._network = network.to(self._device).eval().requires_grad_(False)

    def predict(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Runs the network once."""
        if self._network is None:
            raise PredictorError("not loaded")
        tensors = {spec.name: to_tensor(inputs[spec.name], self._device) for spec in self._specs}
        with torch.inference_mode():
            if self._keywords:
                result = self._network(**{self._keywords[name]: t for name, t in tensors.items()})
            else:
                result = self._network(*tensors.values())
            return named_outputs(result, self._outputs, self._results)

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the header of the safetensors file says, such as the accuracy."""
        return self._metadata

    def close(self) -> None:
        """Frees the weights."""
        self._network = None

    def _read_safetensors(self, path: Path) -> dict[str, torch.Tensor]:
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                self._metadata = dict(file.metadata() or {})
            return load_file(path)
        except (safetensors.SafetensorError, OSError) as exc:
            raise PredictorError(f"{path.name} is no readable safetensors file: {exc}") from exc

    def _unpickle(self, path: Path) -> dict[str, torch.Tensor]:
        """Reads a checkpoint with torch's restricted unpickler; there is no way around it."""
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as exc:
            raise PredictorError(
                f"{path.name} holds more than tensors and plain values. It is refused, for reading "
                "it would run code: save the state dict alone, best as safetensors."
            ) from exc
        except Exception as exc:
            raise PredictorError(f"{path.name} is no readable checkpoint: {exc}") from exc
        if self._state_key is not None:
            if not isinstance(found, Mapping) or self._state_key not in found:
                raise PredictorError(f"state_key: {path.name} has no {self._state_key!r}")
            found = found[self._state_key]
        if not isinstance(found, Mapping) or not all(map(torch.is_tensor, found.values())):
            keys = (
                ", ".join(map(str, found)) if isinstance(found, Mapping) else type(found).__name__
            )
            raise PredictorError(f"{path.name} is no state dict (it holds: {keys}); see state_key")
        return dict(found)
