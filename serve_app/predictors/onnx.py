"""ONNX models, computed by ONNX Runtime."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime

from serve_app.domain.tensor import BYTES, Array, TensorSpec
from serve_app.errors import InvalidInput, PredictorError
from serve_app.predictors.artifact_file import artifact_file
from serve_app.predictors.predictor import LoadContext, Predictor

logger = logging.getLogger(__name__)

ONNX_TYPES = {
    "BOOL": "tensor(bool)",
    "UINT8": "tensor(uint8)",
    "UINT16": "tensor(uint16)",
    "UINT32": "tensor(uint32)",
    "UINT64": "tensor(uint64)",
    "INT8": "tensor(int8)",
    "INT16": "tensor(int16)",
    "INT32": "tensor(int32)",
    "INT64": "tensor(int64)",
    "FP16": "tensor(float16)",
    "FP32": "tensor(float)",
    "FP64": "tensor(double)",
    BYTES: "tensor(string)",
}
"""Datatype -> ONNX Runtime's name of it; its Python side has no BF16."""


class OnnxModel(Predictor):
    """An ONNX model; inputs and outputs are found by name.

    Args:
        inputs: declared input -> its name in the file, where they differ.
        outputs: declared output -> its name in the file, where they differ.
        file: the model's path inside an artifact that is a folder.
    """

    def __init__(
        self,
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        file: str | None = None,
    ) -> None:
        self._inputs, self._outputs, self._file = dict(inputs or {}), dict(outputs or {}), file
        self._session: Any = None

    def load(self, context: LoadContext) -> None:
        """Opens a session and compares the signatures."""
        path = artifact_file(context, (".onnx",), self._file)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = context.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only
        # Idle threads must sleep: the cores are shared with the ingress and other replicas.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=_providers(context.device)
            )
        except Exception as exc:  # ONNX Runtime's errors share no public base class
            raise PredictorError(f"{path.name} is no readable ONNX model: {exc}") from exc
        self._feeds = _matched("input", context.inputs, self._inputs, session.get_inputs(), True)
        self._fetches = _matched(
            "output", context.outputs, self._outputs, session.get_outputs(), False
        )
        self._session = session

    def predict(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Runs the session once."""
        if self._session is None:
            raise PredictorError("not loaded")
        feeds = {there: _as_text(inputs[here], here) for here, there in self._feeds.items()}
        results = self._session.run(list(self._fetches.values()), feeds)
        return dict(zip(self._fetches, results, strict=True))

    @property
    def metadata(self) -> Mapping[str, str]:
        """Which execution provider computes."""
        return {} if self._session is None else {"provider": self._session.get_providers()[0]}

    def close(self) -> None:
        """Frees the session."""
        self._session = None


def _providers(device: str) -> list[Any]:
    if device.startswith("cuda"):
        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            index = int(device.partition(":")[2] or 0)
            return [("CUDAExecutionProvider", {"device_id": index}), "CPUExecutionProvider"]
        logger.warning(
            "this ONNX Runtime has no CUDA provider, so the CPU computes; install onnxruntime-gpu",
            extra={"action": "load"},
        )
    return ["CPUExecutionProvider"]


def _matched(
    kind: str,
    specs: tuple[TensorSpec, ...],
    renamed: Mapping[str, str],
    nodes: Sequence[Any],
    all_of_them: bool,
) -> dict[str, str]:
    """Declared name -> name in the file; refuses names and types that do not meet."""
    declared = {spec.name: spec for spec in specs}
    for name in renamed:
        if name not in declared:
            raise PredictorError(f"{kind}s: {name!r} is not declared ({', '.join(declared)})")
    names = {name: renamed.get(name, name) for name in declared}
    types = {node.name: node.type for node in nodes}
    present = ", ".join(f"{name} {kind_}" for name, kind_ in types.items())
    for name, there in names.items():
        if there not in types:
            raise PredictorError(f"the file has no {kind} {there!r}. It has: {present}.")
        wanted = ONNX_TYPES.get(declared[name].datatype)
        if types[there] != wanted:
            datatype = declared[name].datatype
            raise PredictorError(
                f"{kind} {name!r} is declared {datatype}, the file has {types[there]}"
            )
    unfed = set(types) - set(names.values())
    if all_of_them and unfed:
        raise PredictorError(f"{kind} {', '.join(sorted(unfed))} of the file is not declared")
    return names


def _as_text(array: Array, name: str) -> Array:
    """ONNX strings are text: BYTES must be UTF-8."""
    if not array.dtype.hasobject:
        return array
    texts = np.empty(array.size, dtype=np.object_)
    for position, value in enumerate(array.ravel().tolist()):
        try:
            texts[position] = value.decode()
        except UnicodeDecodeError as exc:
            field = f"{name}[{position}]"
            raise InvalidInput(f"{field} is not valid UTF-8", field) from exc
    return texts.reshape(array.shape)
