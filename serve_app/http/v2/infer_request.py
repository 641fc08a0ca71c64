"""An infer request, from the body to the arrays that the data plane takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from serve_app.config.ingress import RequestLimits
from serve_app.domain.inference import Layout
from serve_app.domain.parameters import check_output_parameters, timeout_s
from serve_app.domain.raw_tensor import Buffer, Shape, from_raw
from serve_app.domain.routing import ModelRoute
from serve_app.domain.tensor import DTYPES, LONGEST_NAME, Array
from serve_app.errors import InvalidInput, MalformedRequest, PayloadTooLarge
from serve_app.http.body import check_members, load_json
from serve_app.http.v2.infer_answer import AnswerForm
from serve_app.http.v2.tensor_codec import array_from_json, array_from_raw, parse_shape

_SCALARS = {str, int, float, bool}
_BINARY_SIZE = ".parameters.binary_data_size"
_DATA_LEVELS = 3
"""Levels of nesting above a tensor's data: request, inputs, tensor."""


class InferCall(NamedTuple):
    """What stands in the body of an infer request."""

    inputs: dict[str, Array]
    outputs: tuple[str, ...]
    timeout_s: float | None
    form: AnswerForm
    layout: Layout | None = None
    """Shared by all requests with the same JSON part."""


_ALL_JSON = AnswerForm()


def decode_infer(
    body: Buffer,
    header_length: bytes | None,
    model: ModelRoute,
    limits: RequestLimits,
    max_depth: int,
) -> InferCall:
    """Reads an infer request: JSON, JSON with binary data, or a raw request.

    Args:
        body: the whole body.
        header_length: the header Inference-Header-Content-Length, if there is one.
        model: what a raw request is for.
        limits: caps on the request.
        max_depth: levels of JSON.

    Raises:
        MalformedRequest: the JSON or the framing is broken.
        InvalidInput: a field has a value that is not allowed.
        PayloadTooLarge: there are too many tensors, or elements of BYTES.
    """
    length = len(body)
    if header_length is not None:
        length = _header_length(header_length, length)
        if length == 0:
            return _decode_raw(body, model)
    text = body[:length]
    if type(text) is not bytes:
        text = bytes(text)
    document = load_json(text)
    if type(document) is not dict:
        raise MalformedRequest("the request must be a JSON object")
    reader = _Reader(body, len(text), limits, max_depth)
    reader.literals = b"true" in text or b"false" in text
    call = reader.read(document)
    if reader.strange or text.count(b":") != reader.members:
        check_members(text, document, max_depth)
    if reader.offset != len(body):
        raise MalformedRequest(
            f"{len(body) - reader.offset} bytes of binary data belong to no input", "inputs"
        )
    return call


def _header_length(value: bytes, whole: int) -> int:
    """Length of the JSON part; 0 announces a raw request."""
    length = int(value) if value.isdigit() and len(value) < 20 else -1
    if not 0 <= length <= whole:
        raise MalformedRequest(
            "Inference-Header-Content-Length must be a whole number, not above the body's length",
            "Inference-Header-Content-Length",
        )
    return length


def _decode_raw(body: Buffer, model: ModelRoute) -> InferCall:
    """Reads a request that is nothing but the bytes of a model's only input."""
    if len(model.inputs) != 1:
        raise InvalidInput(
            f"a raw request needs a model with one input; this one has {len(model.inputs)}"
        )
    spec = model.inputs[0]
    return InferCall({spec.name: array_from_raw(body, spec)}, (), None, AnswerForm(binary=True))


class _Reader:
    """Walks one request, and counts the members that it knows.

    If the count equals the colons in the text, no name stands twice and nothing unknown was sent,
    which spares the common request a second walk (see `check_members`). Where an error happened is
    put into words only once there is one.
    """

    __slots__ = ("body", "limits", "literals", "max_depth", "members", "offset", "strange")

    def __init__(self, body: Buffer, offset: int, limits: RequestLimits, max_depth: int) -> None:
        self.body = body
        self.offset = offset
        self.limits = limits
        self.max_depth = max_depth
        self.members = 0
        self.literals = True
        self.strange = False

    def read(self, document: dict[str, Any]) -> InferCall:
        self.members = len(document)
        inputs = self._inputs(document.get("inputs"))
        if len(document) == 1:
            return InferCall(inputs, (), None, _ALL_JSON)
        identifier = document.get("id")
        parameters = document.get("parameters")
        outputs = document.get("outputs")
        if len(document) != 4 - (identifier, parameters, outputs).count(None):
            self.strange = True
        if identifier is not None and type(identifier) is not str:
            raise InvalidInput("id must be a string", "id")
        binary, wish_s = False, None
        if parameters is not None:
            self._parameters(parameters, "parameters")
            binary = _flag(parameters, "binary_data_output", "parameters") or False
            microseconds = parameters.get("timeout")
            wish_s = None if microseconds is None else timeout_s(microseconds)
        wanted = {} if outputs is None else self._outputs(outputs, binary)
        return InferCall(inputs, tuple(wanted), wish_s, AnswerForm(identifier, binary, wanted))

    def _inputs(self, tensors: object) -> dict[str, Array]:
        if type(tensors) is not list or not tensors:
            raise InvalidInput("inputs must be an array of at least one tensor", "inputs")
        if len(tensors) > self.limits.max_tensors:
            raise PayloadTooLarge(f"at most {self.limits.max_tensors} inputs", "inputs")
        arrays: dict[str, Array] = {}
        try:
            for tensor in tensors:
                if type(tensor) is not dict:
                    raise InvalidInput("an input must be an object")
                self.members += len(tensor)
                name = tensor.get("name")
                if type(name) is not str or len(name) > LONGEST_NAME or name in arrays:
                    raise _bad_name("input", name)
                arrays[name] = self._array(tensor)
        except (InvalidInput, PayloadTooLarge) as error:
            raise _placed(error, f"inputs[{len(arrays)}]") from error
        return arrays

    def _array(self, tensor: dict[str, Any]) -> Array:
        datatype = tensor.get("datatype")
        if type(datatype) is not str or datatype not in DTYPES:
            raise InvalidInput(f"datatype must be one of {', '.join(DTYPES)}", ".datatype")
        shape, count = parse_shape(tensor.get("shape"), self.limits.max_dims, "")
        known = 4
        parameters = tensor.get("parameters")
        if parameters is not None:
            self._parameters(parameters, ".parameters")
            size = parameters.get("binary_data_size")
            if size is not None:
                return self._binary(tensor, size, datatype, shape, count)
            known = 5
        if len(tensor) != known or (len(shape) > 1 and _DATA_LEVELS + len(shape) > self.max_depth):
            self.strange = True
        return array_from_json(
            tensor.get("data"), datatype, shape, count, "", literals=self.literals
        )

    def _binary(
        self, tensor: dict[str, Any], size: object, datatype: str, shape: Shape, count: int
    ) -> Array:
        if "data" in tensor:
            raise InvalidInput("an input has either data or binary data", ".data")
        if len(tensor) != 4:
            self.strange = True
        if type(size) is not int or size < 0:
            raise InvalidInput(
                "binary_data_size must be a whole number, not negative", _BINARY_SIZE
            )
        start = self.offset
        if size > len(self.body) - start:
            raise InvalidInput(
                f"{size} bytes of binary data are announced, {len(self.body) - start} are left",
                _BINARY_SIZE,
            )
        self.offset = start + size
        return from_raw(self.body, start, size, datatype, shape, count, _BINARY_SIZE)

    def _parameters(self, parameters: object, where: str) -> None:
        if type(parameters) is not dict:
            raise InvalidInput("parameters must be an object", where)
        self.members += len(parameters)
        for name, value in parameters.items():
            if type(value) not in _SCALARS:
                raise InvalidInput(
                    "a parameter must be a string, a number or a boolean", f"{where}.{name}"
                )

    def _outputs(self, outputs: object, binary: bool) -> dict[str, bool]:
        if type(outputs) is not list:
            raise InvalidInput("outputs must be an array", "outputs")
        if len(outputs) > self.limits.max_tensors:
            raise PayloadTooLarge(f"at most {self.limits.max_tensors} outputs", "outputs")
        wanted: dict[str, bool] = {}
        try:
            for output in outputs:
                if type(output) is not dict:
                    raise InvalidInput("an output must be an object")
                self.members += len(output)
                name = output.get("name")
                if type(name) is not str or len(name) > LONGEST_NAME or name in wanted:
                    raise _bad_name("output", name)
                wanted[name] = self._output_form(output, binary)
        except InvalidInput as error:
            raise _placed(error, f"outputs[{len(wanted)}]") from error
        return wanted

    def _output_form(self, output: dict[str, Any], binary: bool) -> bool:
        parameters = output.get("parameters")
        if len(output) != (1 if parameters is None else 2):
            self.strange = True
        if parameters is None:
            return binary
        self._parameters(parameters, ".parameters")
        check_output_parameters(parameters, ".parameters")
        form = _flag(parameters, "binary_data", ".parameters")
        return binary if form is None else form


def _bad_name(kind: str, name: object) -> InvalidInput:
    if type(name) is not str or len(name) > LONGEST_NAME:
        return InvalidInput(f"name must be a string of at most {LONGEST_NAME} characters", ".name")
    return InvalidInput(f"{kind} {name!r} stands twice", ".name")


def _placed(error: InvalidInput | PayloadTooLarge, where: str) -> InvalidInput | PayloadTooLarge:
    """The same error, its field seen from the whole request."""
    return type(error)(str(error), where + (error.field or ""))


def _flag(parameters: Mapping[str, Any], name: str, where: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and type(value) is not bool:
        raise InvalidInput(f"{name} must be true or false", f"{where}.{name}")
    return value
