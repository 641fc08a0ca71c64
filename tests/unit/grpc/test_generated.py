"""The committed messages are what the .proto says, and what stock clients speak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.internal import api_implementation
from tritonclient.grpc import service_pb2 as triton

from serve_app.grpc.generate import GENERATED, NAMES, generate
from serve_app.grpc.generated import open_inference_pb2 as ours

MESSAGES = sorted(ours.DESCRIPTOR.message_types_by_name)


def test_generated_code_is_current(tmp_path: Path) -> None:
    generate(tmp_path)
    for name in NAMES:
        assert (tmp_path / name).read_text() == (GENERATED / name).read_text(), "run `make proto`"


def fields(message: Any) -> dict[str, tuple[Any, ...]]:
    return {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            field.message_type.full_name if field.message_type else None,
            field.containing_oneof.name if field.containing_oneof else None,
        )
        for field in message.fields
    }


def same(left: Any, right: Any) -> None:
    assert fields(left) == fields(right), left.full_name
    assert set(left.nested_types_by_name) == set(right.nested_types_by_name), left.full_name
    for name, nested in left.nested_types_by_name.items():
        same(nested, right.nested_types_by_name[name])


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_are_those_of_stock_clients(name: str) -> None:
    stock = triton.DESCRIPTOR.message_types_by_name[name]
    same(ours.DESCRIPTOR.message_types_by_name[name], stock)


def test_methods_are_those_of_stock_clients() -> None:
    stock = triton.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    own = ours.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert own.full_name == stock.full_name == "inference.GRPCInferenceService"
    for method in own.methods:
        other = stock.methods_by_name[method.name]
        assert method.input_type.full_name == other.input_type.full_name
        assert method.output_type.full_name == other.output_type.full_name


def test_ours_and_a_stock_client_share_a_process() -> None:
    # Both define `inference.ModelInferRequest`; this module has imported both.
    pool = ours.DESCRIPTOR.pool
    assert pool is not triton.DESCRIPTOR.pool
    assert pool is not descriptor_pool.Default()
    message = ours.ModelInferRequest(model_name="m", raw_input_contents=[b"abc"])
    message.parameters["timeout"].int64_param = 5
    other = triton.ModelInferRequest.FromString(message.SerializeToString())
    assert other.parameters["timeout"].int64_param == 5
    assert ours.ModelInferRequest.FromString(other.SerializeToString()) == message


def test_the_fast_implementation_is_used() -> None:
    assert api_implementation.Type() == "upb"
