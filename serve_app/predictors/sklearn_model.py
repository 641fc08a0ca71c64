"""scikit-learn estimators from skops files, which run no code when they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
import threadpoolctl  # type: ignore[import-untyped]  # it ships no types

from serve_app.domain.tensor import BYTES, Array
from serve_app.errors import PredictorError
from serve_app.predictors.artifact_file import artifact_file
from serve_app.predictors.predictor import LoadContext, Predictor

METHODS = ("predict", "predict_proba", "decision_function", "transform")
MAX_SIDECAR_BYTES = 64 * 1024


class SklearnModel(Predictor):
    """An estimator with one input and one output.

    A file of the same name ending in ``.json`` beside it may hold facts for the metadata.

    Args:
        method: what to call: predict, predict_proba, decision_function or transform.
        trusted: types in the file that skops does not know to be harmless, by import path.
        file: the file's path inside an artifact that is a folder.
    """

    def __init__(
        self, method: str = "predict", trusted: Sequence[str] = (), file: str | None = None
    ) -> None:
        if method not in METHODS:
            raise PredictorError(f"method: {method!r} is not one of {', '.join(METHODS)}")
        self._method, self._trusted, self._file = method, list(trusted), file
        self._metadata: dict[str, str] = {}
        self._compute: Any = None

    def load(self, context: LoadContext) -> None:
        """Reads the estimator after a look at the types inside."""
        if len(context.inputs) != 1 or len(context.outputs) != 1:
            raise PredictorError("an estimator has one input and one output")
        self._input, self._output = context.inputs[0].name, context.outputs[0]
        threadpoolctl.threadpool_limits(limits=context.threads)
        path = artifact_file(context, (".skops",), self._file)
        estimator = self._read(path)
        self._compute = getattr(estimator, self._method, None)
        if self._compute is None:
            raise PredictorError(f"method: a {type(estimator).__name__} has no {self._method!r}")
        self._metadata = _sidecar(path)

    def predict(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Calls the estimator once."""
        if self._compute is None:
            raise PredictorError("not loaded")
        result = np.asarray(self._compute(inputs[self._input]))
        if self._output.datatype != BYTES and result.dtype != self._output.dtype:
            result = result.astype(self._output.dtype, casting="same_kind")
        return {self._output.name: result}

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the file beside the estimator says, such as the accuracy."""
        return self._metadata

    def close(self) -> None:
        """Frees the estimator."""
        self._compute = None

    def _read(self, path: Path) -> Any:
        try:
            unknown = set(skops.io.get_untrusted_types(file=path)) - set(self._trusted)
            if unknown:
                raise PredictorError(
                    f"{path.name} holds types that are not trusted: {', '.join(sorted(unknown))}. "
                    "Add those that you trust to `trusted`."
                )
            return skops.io.load(path, trusted=self._trusted)
        except PredictorError:
            raise
        except Exception as exc:
            raise PredictorError(f"{path.name} is no readable skops file: {exc}") from exc


def _sidecar(path: Path) -> dict[str, str]:
    """Facts about the estimator from the JSON file beside it, if there is one."""
    sidecar = path.with_suffix(".json")
    try:
        with sidecar.open("rb") as file:
            facts = json.loads(file.read(MAX_SIDECAR_BYTES))
    except FileNotFoundError:
        return {}
    except ValueError as exc:
        raise PredictorError(f"{sidecar.name} is no JSON") from exc
    if not isinstance(facts, dict):
        raise PredictorError(f"{sidecar.name} must hold one JSON object")
    return {str(name): str(value) for name, value in facts.items()}
