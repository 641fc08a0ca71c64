"""An infer request, from the body to the arrays that the data plane takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from serve_app.config.ingress import RequestLimits
from serve_app.domain.routing import ModelRoute
from serve_app.domain.tensor import DTYPES, Array
from serve_app.errors import InvalidInput, MalformedRequest, PayloadTooLarge
from serve_app.http.body import check_members, load_json
from serve_app.http.v2.infer_answer import AnswerForm
from serve_app.http.v2.tensor_codec import (
    array_from_binary,
    array_from_json,
    array_from_raw,
    parse_shape,
)

_REQUEST = {"inputs", "id", "parameters", "outputs"}
_INPUT = {"name", "shape", "datatype", "parameters", "data"}
_OUTPUT = {"name", "parameters"}
_SCALARS = {str, int, float, bool}
_DATA_LEVELS = 3
"""Levels of nesting above a tensor's data: request, inputs, tensor."""


class InferCall(NamedTuple):
    """What stands in the body of an infer request."""

    inputs: dict[str, Array]
    outputs: tuple[str, ...]
    timeout_s: float | None
    form: AnswerForm


_ALL_JSON = AnswerForm()


def decode_infer(
    body: bytes, header_length: bytes | None, limits: RequestLimits, max_depth: int
) -> InferCall:
    """Reads an infer request that has a JSON part.

    Args:
        body: the whole body.
        header_length: the header Inference-Header-Content-Length, if there is one.
        limits: caps on the request.
        max_depth: levels of JSON.

    Raises:
        MalformedRequest: the JSON or the framing is broken.
        InvalidInput: a field has a value that is not allowed.
        PayloadTooLarge: there are too many tensors.
    """
    text = body if header_length is None else body[: parse_header_length(header_length, body)]
    document = load_json(text)
    if type(document) is not dict:
        raise MalformedRequest("the request must be a JSON object")
    reader = _Reader(body, len(text), limits, max_depth)
    call = reader.read(document)
    if reader.strange or text.count(b":") != reader.members:
        check_members(text, document, max_depth)
    if reader.offset != len(body):
        raise MalformedRequest(
            f"{len(body) - reader.offset} bytes of binary data belong to no input", "inputs"
        )
    return call


def parse_header_length(value: bytes, body: bytes) -> int:
    """Length of the JSON part; 0 announces a raw request."""
    length = int(value) if value.isdigit() and len(value) < 20 else -1
    if not 0 <= length <= len(body):
        raise MalformedRequest(
            "Inference-Header-Content-Length must be a whole number, not above the body's length",
            "Inference-Header-Content-Length",
        )
    return length


def decode_raw(body: bytes, model: ModelRoute) -> InferCall:
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
    which spares the common request a second walk (see `check_members`).
    """

    __slots__ = ("body", "limits", "max_depth", "members", "offset", "strange")

    def __init__(self, body: bytes, offset: int, limits: RequestLimits, max_depth: int) -> None:
        self.body = body
        self.offset = offset
        self.limits = limits
        self.max_depth = max_depth
        self.members = 0
        self.strange = False

    def read(self, document: dict[str, Any]) -> InferCall:
        self._count(document, _REQUEST)
        inputs = self._inputs(document.get("inputs"))
        identifier = document.get("id")
        parameters = document.get("parameters")
        outputs = document.get("outputs")
        if identifier is None and parameters is None and outputs is None:
            return InferCall(inputs, (), None, _ALL_JSON)
        if identifier is not None and type(identifier) is not str:
            raise InvalidInput("id must be a string", "id")
        binary, timeout_s = False, None
        if parameters is not None:
            self._parameters(parameters, "parameters")
            binary = _flag(parameters, "binary_data_output", "parameters") or False
            timeout_s = _timeout_s(parameters)
        wanted = {} if outputs is None else self._outputs(outputs, binary)
        return InferCall(inputs, tuple(wanted), timeout_s, AnswerForm(identifier, binary, wanted))

    def _count(self, item: dict[str, Any], known: set[str]) -> None:
        self.members += len(item)
        if not item.keys() <= known:
            self.strange = True

    def _inputs(self, tensors: object) -> dict[str, Array]:
        if type(tensors) is not list or not tensors:
            raise InvalidInput("inputs must be an array of at least one tensor", "inputs")
        if len(tensors) > self.limits.max_tensors:
            raise PayloadTooLarge(f"at most {self.limits.max_tensors} inputs", "inputs")
        arrays: dict[str, Array] = {}
        for index, tensor in enumerate(tensors):
            where = f"inputs[{index}]"
            if type(tensor) is not dict:
                raise InvalidInput("an input must be an object", where)
            self._count(tensor, _INPUT)
            name = tensor.get("name")
            if type(name) is not str:
                raise InvalidInput("name must be a string", f"{where}.name")
            if name in arrays:
                raise InvalidInput(f"input {name!r} stands twice", f"{where}.name")
            arrays[name] = self._array(tensor, where)
        return arrays

    def _array(self, tensor: dict[str, Any], where: str) -> Array:
        datatype = tensor.get("datatype")
        if type(datatype) is not str or datatype not in DTYPES:
            raise InvalidInput(f"datatype must be one of {', '.join(DTYPES)}", f"{where}.datatype")
        shape, count = parse_shape(tensor.get("shape"), self.limits.max_dims, where)
        parameters = tensor.get("parameters")
        if parameters is not None:
            self._parameters(parameters, f"{where}.parameters")
            size = parameters.get("binary_data_size")
            if size is not None:
                return self._binary(tensor, size, datatype, shape, count, where)
        data = tensor.get("data")
        if len(shape) > 1 and _DATA_LEVELS + len(shape) > self.max_depth:
            self.strange = True
        return array_from_json(data, datatype, shape, count, where)

    def _binary(
        self,
        tensor: dict[str, Any],
        size: object,
        datatype: str,
        shape: tuple[int, ...],
        count: int,
        where: str,
    ) -> Array:
        field = f"{where}.parameters.binary_data_size"
        if "data" in tensor:
            raise InvalidInput("an input has either data or binary data", f"{where}.data")
        if type(size) is not int or size < 0:
            raise InvalidInput("binary_data_size must be a whole number, not negative", field)
        start = self.offset
        if size > len(self.body) - start:
            raise InvalidInput(
                f"{size} bytes of binary data are announced, {len(self.body) - start} are left",
                field,
            )
        self.offset = start + size
        return array_from_binary(self.body, start, size, datatype, shape, count, where)

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
        for index, output in enumerate(outputs):
            where = f"outputs[{index}]"
            if type(output) is not dict:
                raise InvalidInput("an output must be an object", where)
            self._count(output, _OUTPUT)
            name = output.get("name")
            if type(name) is not str:
                raise InvalidInput("name must be a string", f"{where}.name")
            if name in wanted:
                raise InvalidInput(f"output {name!r} stands twice", f"{where}.name")
            wanted[name] = binary
            parameters = output.get("parameters")
            if parameters is not None:
                wanted[name] = self._output_form(parameters, f"{where}.parameters", binary)
        return wanted

    def _output_form(self, parameters: Any, where: str, binary: bool) -> bool:
        self._parameters(parameters, where)
        for name in ("classification", "shared_memory_region"):
            if name in parameters:
                raise InvalidInput(f"{name} is not supported", f"{where}.{name}")
        form = _flag(parameters, "binary_data", where)
        return binary if form is None else form


def _flag(parameters: Mapping[str, Any], name: str, where: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and type(value) is not bool:
        raise InvalidInput(f"{name} must be true or false", f"{where}.{name}")
    return value


def _timeout_s(parameters: Mapping[str, Any]) -> float | None:
    """The request's own deadline, in microseconds on the wire; 0 means none."""
    value = parameters.get("timeout")
    if value is None:
        return None
    if type(value) is not int or value < 0:
        raise InvalidInput(
            "timeout must be a whole number of microseconds, not negative", "parameters.timeout"
        )
    return value / 1e6 or None
