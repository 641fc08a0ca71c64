"""A predictor that needs nothing: for tests, documents and smoke deploys."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import numpy as np

from serve_app.domain.tensor import Array
from serve_app.errors import InvalidInput, PredictorError
from serve_app.predictors.predictor import LoadContext, Predictor

Scalar = str | int | float | bool


class EchoModel(Predictor):
    """Returns each input as the output declared in the same place.

    Args:
        delay_s: sleeps this long per batch.
        fail_on: raises an error when an input holds this value.
        reject_on: calls an input invalid when it holds this value.
        exit_on: ends the whole process when an input holds this value, as a crash would.
    """

    def __init__(
        self,
        delay_s: float = 0.0,
        fail_on: Scalar | None = None,
        reject_on: Scalar | None = None,
        exit_on: Scalar | None = None,
    ) -> None:
        self._delay_s = delay_s
        self._fail_on, self._reject_on, self._exit_on = fail_on, reject_on, exit_on
        self._names: tuple[tuple[str, str], ...] = ()

    def load(self, context: LoadContext) -> None:
        """Pairs inputs with outputs."""
        inputs, outputs = context.inputs, context.outputs
        if [spec.datatype for spec in inputs] != [spec.datatype for spec in outputs]:
            raise PredictorError(
                "an echo declares as many outputs as inputs, of the same datatypes"
            )
        self._names = tuple(
            (have.name, want.name) for have, want in zip(inputs, outputs, strict=True)
        )

    def predict(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Returns the inputs."""
        if _holds(inputs, self._exit_on):
            os._exit(1)
        if self._delay_s:
            time.sleep(self._delay_s)
        if _holds(inputs, self._fail_on):
            raise RuntimeError("an echo met the value that it fails on")
        if _holds(inputs, self._reject_on):
            raise InvalidInput("an echo met the value that it rejects", "inputs")
        return {output: inputs[name] for name, output in self._names}


def _holds(inputs: Mapping[str, Array], value: Scalar | None) -> bool:
    """Whether any input holds the value; text is looked for in BYTES only, numbers in the rest."""
    if value is None:
        return False
    wanted = value.encode() if isinstance(value, str) else value
    return any(
        bool(np.any(array == wanted))
        for array in inputs.values()
        if array.dtype.hasobject == isinstance(wanted, bytes)
    )
