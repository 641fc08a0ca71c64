"""Binary requests whose JSON part was seen before: their tensors are cut out by a remembered plan.

A client that sends tensors of one shape sends the same JSON part again and again. Reading and
checking it takes more than everything else that is done with a small request.
"""

from __future__ import annotations

from typing import NamedTuple

from serve_app.config.ingress import RequestLimits
from serve_app.domain.inference import Layout
from serve_app.domain.raw_tensor import Buffer, Shape, from_raw
from serve_app.domain.routing import ModelRoute
from serve_app.domain.tensor import DATATYPES, Array
from serve_app.http.v2.infer_answer import AnswerForm
from serve_app.http.v2.infer_request import InferCall, decode_infer

_MAX_PLANS = 256
_LONGEST = 2048
"""Bytes of a JSON part that is worth remembering."""


class _Cut(NamedTuple):
    """Where one tensor lies behind the JSON part, and what it is."""

    name: str
    start: int
    size: int
    datatype: str
    shape: Shape
    elements: int
    field: str


class _Plan(NamedTuple):
    cuts: tuple[_Cut, ...]
    size: int
    rest: tuple[tuple[str, ...], float | None, AnswerForm, Layout]
    """The call without its inputs."""


class BinaryPlans:
    """Reads requests with one set of limits, and remembers how the binary ones are laid out."""

    def __init__(self, limits: RequestLimits, max_depth: int) -> None:
        self._limits = limits
        self._max_depth = max_depth
        self._plans: dict[bytes, _Plan] = {}

    def decode(self, body: Buffer, header_length: bytes | None, model: ModelRoute) -> InferCall:
        """See `decode_infer`."""
        text = b""
        if header_length is not None and header_length.isdigit() and len(header_length) < 5:
            text = bytes(body[: min(int(header_length), _LONGEST)])
            plan = self._plans.get(text)
            if plan is not None and plan.size == len(body):
                inputs: dict[str, Array] = {}
                for name, start, size, datatype, shape, elements, field in plan.cuts:
                    inputs[name] = from_raw(body, start, size, datatype, shape, elements, field)
                return InferCall(inputs, *plan.rest)
        call = decode_infer(body, header_length, model, self._limits, self._max_depth)
        if text and len(text) < _LONGEST:
            self._remember(text, len(body), call)
        return call

    def _remember(self, text: bytes, size: int, call: InferCall) -> None:
        """Keeps a plan if every input is binary and of a fixed size, and no id makes it unique."""
        arrays = call.inputs.values()
        if call.form.id is not None or any(array.dtype.hasobject for array in arrays):
            return
        if sum([array.nbytes for array in arrays]) != size - len(text):
            return  # some inputs are JSON
        cuts: list[_Cut] = []
        start = len(text)
        for index, (name, array) in enumerate(call.inputs.items()):
            field = f"inputs[{index}].parameters.binary_data_size"
            datatype = DATATYPES[array.dtype]
            cuts.append(_Cut(name, start, array.nbytes, datatype, array.shape, array.size, field))
            start += array.nbytes
        if len(self._plans) >= _MAX_PLANS:
            self._plans.clear()
        rest = (call.outputs, call.timeout_s, call.form, Layout())
        self._plans[text] = _Plan(tuple(cuts), size, rest)
