"""A model that says which replica has answered."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import numpy as np

from serve_app.domain.tensor import Array
from serve_app.predictors.predictor import LoadContext, Predictor


class ProcessId(Predictor):
    """Returns the id of its process for each row.

    Args:
        load_s: a load takes this long.
        delay_s: a batch takes this long.
    """

    def __init__(self, load_s: float, delay_s: float) -> None:
        self._load_s, self._delay_s = load_s, delay_s

    def load(self, context: LoadContext) -> None:
        """Takes its time."""
        self._output = context.outputs[0].name
        time.sleep(self._load_s)

    def predict(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Takes its time, too."""
        time.sleep(self._delay_s)
        rows = len(next(iter(inputs.values())))
        return {self._output: np.full((rows, 1), os.getpid(), np.int64)}
