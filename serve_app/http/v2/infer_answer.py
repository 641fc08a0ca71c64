"""The answer to an infer request, from the model's outputs to the body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from serve_app.domain.inference import InferenceResult
from serve_app.domain.raw_tensor import datatype_of, to_raw
from serve_app.http.v2.tensor_codec import array_to_json

HEADER_LENGTH = b"inference-header-content-length"


class AnswerForm(NamedTuple):
    """How the client wants its answer."""

    id: str | None = None
    binary: bool = False
    """Outputs as binary, unless `outputs` says otherwise."""
    outputs: Mapping[str, bool] = {}


_JSON = b"content-type: application/json\r\ncontent-length: "
_BINARY = b"content-type: application/octet-stream\r\n%b: %d\r\ncontent-length: "


def encode_infer(result: InferenceResult, form: AnswerForm) -> tuple[bytes, bytes]:
    """Writes the answer.

    Returns:
        The body, and the lines of the head that describe it, up to the value of its length.

    Raises:
        InvalidInput: an output cannot be written in JSON, and the client did not ask for binary.
        ModelFailed: an output is of no known datatype.
    """
    outputs: list[dict[str, Any]] = []
    blobs: list[bytes | memoryview] = []
    for name, array in result.outputs.items():
        output: dict[str, Any] = {
            "name": name,
            "datatype": datatype_of(name, array),
            "shape": array.shape,
        }
        if form.outputs.get(name, form.binary):
            blob = to_raw(array)
            blobs.append(blob)
            output["parameters"] = {"binary_data_size": len(blob)}
        else:
            output["data"] = array_to_json(array, name)
        outputs.append(output)
    answer: dict[str, Any] = {"model_name": result.model, "model_version": result.version}
    if form.id is not None:
        answer["id"] = form.id
    answer["outputs"] = outputs
    text = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    if not blobs:
        return text, _JSON
    return b"".join((text, *blobs)), _BINARY % (HEADER_LENGTH, len(text))
