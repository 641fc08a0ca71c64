"""The answer to an infer request, from the model's outputs to the body.

Answers with outputs of the same shapes differ in their numbers only: what stands around the numbers
is written once and remembered.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np
import orjson

from serve_app.domain.inference import InferenceResult
from serve_app.domain.raw_tensor import Buffer, Shape, datatype_of, to_raw
from serve_app.domain.tensor import Array
from serve_app.http.v2.tensor_codec import array_to_json

HEADER_LENGTH = b"inference-header-content-length"

_MAX_TEMPLATES = 256
_DATA = b'"data":'
_GAP = _DATA + rb'"\u0000"'
"""Stands where data is to be: within any string its quotes would be escaped."""


class AnswerForm(NamedTuple):
    """How the client wants its answer."""

    id: str | None = None
    binary: bool = False
    """Outputs as binary, unless `outputs` says otherwise."""
    outputs: Mapping[str, bool] = {}


class _Template(NamedTuple):
    pieces: list[bytes]
    """The JSON part, with a gap between each two pieces for the data of one output."""
    lines: bytes
    """Those of the head, unless there are gaps and binary outputs."""


class InferAnswers:
    """Writes answers, and remembers what those of the same shapes have in common."""

    def __init__(self) -> None:
        self._templates: dict[Hashable, _Template] = {}

    def encode(self, result: InferenceResult, form: AnswerForm) -> tuple[bytes, int, list[Buffer]]:
        """Writes one answer.

        Returns:
            The lines of the head that describe it, up to the value of its length; that length; and
            the body in parts.

        Raises:
            InvalidInput: an output cannot be written in JSON, and the client did not ask for
                binary.
            ModelFailed: an output is of no known datatype.
        """
        outputs: list[tuple[str, np.dtype[Any], Shape, int]] = []
        gaps: list[Array | list[str]] = []
        parts: list[Buffer] = [b""]
        size = 0
        for name, array in result.outputs.items():
            if form.outputs.get(name, form.binary):
                blob = to_raw(array)
                parts.append(blob)
                length = len(blob)
                size += length
            else:
                gaps.append(array_to_json(array, name))
                length = -1
            outputs.append((name, array.dtype, array.shape, length))
        key = (result.model, result.version, form.id, *outputs)
        template = self._templates.get(key)
        if template is None:
            lengths = [length for *_, length in outputs]
            template = self._template(key, result, form.id, lengths)
        pieces, lines = template
        text = pieces[0]
        if gaps:
            text = _filled(pieces, gaps)
            if len(parts) > 1:
                lines = _binary_lines(result.version, len(text))
        parts[0] = text
        return lines, size + len(text), parts

    def _template(
        self, key: Hashable, result: InferenceResult, identifier: str | None, lengths: list[int]
    ) -> _Template:
        """Makes a template, and remembers it unless it will hardly be of use again.

        Args:
            key: under which it is remembered.
            result: with outputs of the shapes that the template is for.
            identifier: the client's name for its request.
            lengths: of the outputs in bytes, -1 for those that are not binary.
        """
        text = _text(result, identifier, lengths)
        pieces = text.split(_GAP)
        pieces[:-1] = [piece + _DATA for piece in pieces[:-1]]
        binary = max(lengths, default=-1) >= 0
        lines = (_binary_lines if binary else _json_lines)(result.version, len(text))
        template = _Template(pieces, lines)
        vary = any(
            array.dtype.hasobject and length >= 0
            for array, length in zip(result.outputs.values(), lengths, strict=True)
        )
        if identifier is None and not vary:
            if len(self._templates) >= _MAX_TEMPLATES:
                self._templates.clear()
            self._templates[key] = template
        return template


def _text(result: InferenceResult, identifier: str | None, lengths: list[int]) -> bytes:
    """The JSON part with a mark where data is to be."""
    outputs: list[dict[str, Any]] = []
    for (name, array), length in zip(result.outputs.items(), lengths, strict=True):
        output: dict[str, Any] = {
            "name": name,
            "datatype": datatype_of(name, array),
            "shape": array.shape,
        }
        if length >= 0:
            output["parameters"] = {"binary_data_size": length}
        else:
            output["data"] = "\0"
        outputs.append(output)
    answer: dict[str, Any] = {"model_name": result.model, "model_version": result.version}
    if identifier is not None:
        answer["id"] = identifier
    answer["outputs"] = outputs
    return orjson.dumps(answer)


def _filled(pieces: list[bytes], gaps: list[Array | list[str]]) -> bytes:
    """The JSON part with its data."""
    filled = [pieces[0]]
    for data, piece in zip(gaps, pieces[1:], strict=True):
        filled += (orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY), piece)
    return b"".join(filled)


def _json_lines(version: str, _length: int) -> bytes:
    # A version is of a pattern that holds no line break.
    return b"content-type: application/json\r\nx-model-version: %b\r\ncontent-length: " % (
        version.encode()
    )


def _binary_lines(version: str, length: int) -> bytes:
    """Args: the version, and the length of the JSON part."""
    return (
        b"content-type: application/octet-stream\r\n%b: %d\r\nx-model-version: %b\r\n"
        b"content-length: " % (HEADER_LENGTH, length, version.encode())
    )
