"""The answer to an infer request, from the model's outputs to the body.

Answers whose outputs are all binary and of the same shapes differ in their blobs only: what stands
before those is written once and remembered.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import orjson

from serve_app.domain.inference import InferenceResult
from serve_app.domain.raw_tensor import Buffer, datatype_of, to_raw
from serve_app.http.v2.tensor_codec import array_to_json

HEADER_LENGTH = b"inference-header-content-length"

_MAX_REMEMBERED = 256


class AnswerForm(NamedTuple):
    """How the client wants its answer."""

    id: str | None = None
    binary: bool = False
    """Outputs as binary, unless `outputs` says otherwise."""
    outputs: Mapping[str, bool] = {}


Answer = tuple[bytes, int, list[Buffer]]
"""Lines of the head that describe the body, up to the value of its length; that length; and the
body in parts: its JSON, then its blobs."""


class InferAnswers:
    """Writes answers, and remembers the JSON part of binary ones."""

    def __init__(self) -> None:
        self._remembered: dict[Hashable, tuple[bytes, bytes]] = {}

    def encode(self, result: InferenceResult, form: AnswerForm) -> Answer:
        """See `encode_infer`."""
        if form.id is not None:
            return encode_infer(result, form)
        key: list[Hashable] = [result.model, result.version]
        parts: list[Buffer] = [b""]
        size = 0
        for name, array in result.outputs.items():
            # BYTES of one shape may have any length.
            if array.dtype.hasobject or not form.outputs.get(name, form.binary):
                return encode_infer(result, form)
            blob = to_raw(array)
            parts.append(blob)
            size += len(blob)
            key.append((name, array.dtype, array.shape))
        known = self._remembered.get(tuple(key))
        if known is None:
            lines, size, parts = encode_infer(result, form)
            if len(self._remembered) >= _MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[tuple(key)] = (bytes(parts[0]), lines)
            return lines, size, parts
        text, lines = known
        parts[0] = text
        return lines, size + len(text), parts


def encode_infer(result: InferenceResult, form: AnswerForm) -> Answer:
    """Writes the answer.

    Raises:
        InvalidInput: an output cannot be written in JSON, and the client did not ask for binary.
        ModelFailed: an output is of no known datatype.
    """
    outputs: list[dict[str, Any]] = []
    parts: list[Buffer] = [b""]
    size = 0
    for name, array in result.outputs.items():
        output: dict[str, Any] = {
            "name": name,
            "datatype": datatype_of(name, array),
            "shape": array.shape,
        }
        if form.outputs.get(name, form.binary):
            blob = to_raw(array)
            parts.append(blob)
            size += len(blob)
            output["parameters"] = {"binary_data_size": len(blob)}
        else:
            output["data"] = array_to_json(array, name)
        outputs.append(output)
    answer: dict[str, Any] = {"model_name": result.model, "model_version": result.version}
    if form.id is not None:
        answer["id"] = form.id
    answer["outputs"] = outputs
    text = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    version = result.version.encode()  # of a pattern that holds no line break
    lines = _JSON % version if len(parts) == 1 else _BINARY % (HEADER_LENGTH, len(text), version)
    parts[0] = text
    return lines, size + len(text), parts


_JSON = b"content-type: application/json\r\nx-model-version: %b\r\ncontent-length: "
_BINARY = (
    b"content-type: application/octet-stream\r\n%b: %d\r\nx-model-version: %b\r\ncontent-length: "
)
