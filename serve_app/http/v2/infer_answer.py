"""The answer to an infer request, from the model's outputs to the body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from serve_app.domain.inference import InferenceResult
from serve_app.domain.raw_tensor import datatype_of, to_raw
from serve_app.http.errors import JSON, Headers
from serve_app.http.v2.tensor_codec import array_to_json

OCTET_STREAM = (b"content-type", b"application/octet-stream")
HEADER_LENGTH = b"inference-header-content-length"


class AnswerForm(NamedTuple):
    """How the client wants its answer."""

    id: str | None = None
    binary: bool = False
    """Outputs as binary, unless `outputs` says otherwise."""
    outputs: Mapping[str, bool] = {}


def encode_infer(result: InferenceResult, form: AnswerForm) -> tuple[Headers, bytes]:
    """Writes the answer; returns the headers that describe it, and the body.

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
        return [JSON, (b"content-length", b"%d" % len(text))], text
    body = b"".join((text, *blobs))
    return [
        OCTET_STREAM,
        (HEADER_LENGTH, b"%d" % len(text)),
        (b"content-length", b"%d" % len(body)),
    ], body
