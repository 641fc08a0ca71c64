"""ModelInfer requests as the data plane's values."""

from __future__ import annotations

from collections.abc import Sequence

from serve_app.config.ingress import RequestLimits
from serve_app.domain.caller import UNKNOWN, Caller
from serve_app.domain.inference import InferenceRequest
from serve_app.domain.parameters import check_output_parameters, timeout_s
from serve_app.domain.raw_tensor import Buffer, element_count, from_raw
from serve_app.domain.tensor import DTYPES, LONGEST_NAME, Array
from serve_app.errors import InvalidInput, PayloadTooLarge
from serve_app.grpc.contents import array_from_contents
from serve_app.grpc.generated.open_inference_pb2 import ModelInferRequest


def decode_request(
    message: ModelInferRequest,
    raw: Sequence[Buffer],
    request_id: str,
    remaining_s: float | None,
    limits: RequestLimits,
    caller: Caller = UNKNOWN,
) -> InferenceRequest:
    """Reads a request.

    Args:
        message: as it was sent, its raw contents aside.
        raw: the raw contents.
        request_id: the id of this call; the message's own `id` is only echoed.
        remaining_s: what is left of the RPC's deadline, if it has one.
        limits: caps on the request.
        caller: who sends it.

    Raises:
        InvalidInput: a field has a value that is not allowed.
        PayloadTooLarge: there are too many tensors, or elements of BYTES.
    """
    deadline_s = remaining_s
    if message.parameters:
        wish_s = _wish_s(message)
        if wish_s is not None and (deadline_s is None or wish_s < deadline_s):
            deadline_s = wish_s
    return InferenceRequest(
        message.model_name,
        message.model_version or None,
        _inputs(message, raw, limits),
        request_id,
        deadline_s,
        _wanted(message, limits) if message.outputs else (),
        None,
        caller,
    )


def _wish_s(message: ModelInferRequest) -> float | None:
    """The deadline in the request's parameters."""
    parameter = message.parameters.get("timeout")
    if parameter is None:
        return None
    kind = parameter.WhichOneof("parameter_choice")
    return timeout_s(None if kind is None else getattr(parameter, kind))


def _inputs(
    message: ModelInferRequest, raw: Sequence[Buffer], limits: RequestLimits
) -> dict[str, Array]:
    tensors = message.inputs
    if not tensors:
        raise InvalidInput("inputs must hold at least one tensor", "inputs")
    if len(tensors) > limits.max_tensors:
        raise PayloadTooLarge(f"at most {limits.max_tensors} inputs", "inputs")
    if raw and len(raw) != len(tensors):
        raise InvalidInput(
            f"raw_input_contents has {len(raw)} entries for {len(tensors)} inputs",
            "raw_input_contents",
        )
    arrays: dict[str, Array] = {}
    for index, tensor in enumerate(tensors):
        where = f"inputs[{index}]"
        name = tensor.name
        if len(name) > LONGEST_NAME or name in arrays:
            raise _bad_name("input", name, where)
        data = raw[index] if raw else None
        arrays[name] = _array(tensor, data, limits.max_dims, where, index)
    return arrays


def _array(
    tensor: ModelInferRequest.InferInputTensor,
    data: Buffer | None,
    max_dims: int,
    where: str,
    index: int,
) -> Array:
    datatype = tensor.datatype
    if datatype not in DTYPES:
        raise InvalidInput(f"datatype must be one of {', '.join(DTYPES)}", f"{where}.datatype")
    shape = tuple(tensor.shape)
    count = element_count(shape, max_dims, where)
    if data is None:
        if not tensor.HasField("contents"):
            raise InvalidInput(
                f"input {tensor.name!r} has no data: neither contents nor raw_input_contents",
                f"{where}.contents",
            )
        return array_from_contents(tensor.contents, datatype, shape, count, where)
    if tensor.HasField("contents"):
        raise InvalidInput(
            "a request has either raw_input_contents or contents, not both", f"{where}.contents"
        )
    return from_raw(data, 0, len(data), datatype, shape, count, f"raw_input_contents[{index}]")


def _wanted(message: ModelInferRequest, limits: RequestLimits) -> tuple[str, ...]:
    if len(message.outputs) > limits.max_tensors:
        raise PayloadTooLarge(f"at most {limits.max_tensors} outputs", "outputs")
    names: list[str] = []
    for index, output in enumerate(message.outputs):
        where = f"outputs[{index}]"
        if len(output.name) > LONGEST_NAME or output.name in names:
            raise _bad_name("output", output.name, where)
        check_output_parameters(output.parameters, f"{where}.parameters")
        names.append(output.name)
    return tuple(names)


def _bad_name(kind: str, name: str, where: str) -> InvalidInput:
    if len(name) > LONGEST_NAME:
        return InvalidInput(f"name must have at most {LONGEST_NAME} characters", f"{where}.name")
    return InvalidInput(f"{kind} {name!r} stands twice", f"{where}.name")
