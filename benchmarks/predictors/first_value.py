"""A model that computes next to nothing, however large its input is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from serve_app.domain.tensor import Array
from serve_app.errors import PredictorError
from serve_app.predictors.predictor import LoadContext, Predictor


class FirstValue(Predictor):
    """Returns the first value of each row: what is measured is how the input got here."""

    def load(self, context: LoadContext) -> None:
        """Takes the names of its one input and its one output."""
        if len(context.inputs) != 1 or len(context.outputs) != 1:
            raise PredictorError("this model declares one input and one output")
        self._input, self._output = context.inputs[0].name, context.outputs[0].name

    def predict(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Reads one value per row."""
        rows = inputs[self._input]
        first = rows.reshape(len(rows), -1)[:, :1]
        return {self._output: np.ascontiguousarray(first)}
