"""TorchScript archives."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch

from serve_app.domain.tensor import Array
from serve_app.errors import PredictorError
from serve_app.predictors.artifact_file import artifact_file
from serve_app.predictors.predictor import LoadContext, Predictor
from serve_app.predictors.torch_tensor import named_outputs, to_tensor, use_threads

SUFFIXES = (".jit", ".pt", ".pth", ".ts")
PROFILED_RUNS = 3
"""The profiling executor compiles during the first runs; the third one is fast."""


class TorchScript(Predictor):
    """A TorchScript archive, called with the declared inputs in their order.

    Args:
        trust: must be ``code``. An archive is a program: load none whose publisher you would not
            let run code on the machine.
        extra_arguments: constants that follow the inputs, such as a sampling rate.
        reset_states: calls the module's `reset_states` before each batch, so that no request
            sees what an earlier one left behind.
        file: the archive's path inside an artifact that is a folder.
    """

    def __init__(
        self,
        trust: str,
        extra_arguments: Sequence[int | float | bool | str] = (),
        reset_states: bool = False,
        file: str | None = None,
    ) -> None:
        if trust != "code":
            raise PredictorError(
                "trust: a TorchScript archive is a program; say `trust: code` if you trust it"
            )
        self._extra = tuple(extra_arguments)
        self._reset_states, self._file = reset_states, file
        self._module: torch.jit.ScriptModule | None = None

    def load(self, context: LoadContext) -> None:
        """Reads the archive."""
        use_threads(context.threads)
        self._inputs, self._outputs = context.inputs, context.outputs
        self._device = torch.device(context.device)
        path = artifact_file(context, SUFFIXES, self._file)
        try:
            with warnings.catch_warnings():
                # torch advises the makers of models to use torch.export; this is for what exists.
                warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated")
                module: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
                    str(path), map_location=self._device
                )
        except (RuntimeError, ValueError) as exc:
            raise PredictorError(f"{path.name} is no readable TorchScript archive: {exc}") from exc
        if self._reset_states and not hasattr(module, "reset_states"):
            raise PredictorError(f"reset_states: {path.name} has no such method")
        module.eval()
        self._module = module

    def warm_up(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Runs the example until the executor has compiled."""
        for _ in range(PROFILED_RUNS - 1):
            self.predict(inputs)
        return self.predict(inputs)

    def predict(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Runs the module once."""
        module = self._module
        if module is None:
            raise PredictorError("not loaded")
        tensors = [to_tensor(inputs[spec.name], self._device) for spec in self._inputs]
        with torch.inference_mode():
            if self._reset_states:
                module.reset_states()
            return named_outputs(module(*tensors, *self._extra), self._outputs, {})

    def close(self) -> None:
        """Frees the module."""
        self._module = None
