"""Cutting raw contents out of a message gives what protobuf itself would give."""

from __future__ import annotations

import tracemalloc

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from serve_app.errors import MalformedRequest, PayloadTooLarge
from serve_app.grpc import wire
from serve_app.grpc.generated.open_inference_pb2 import ModelInferRequest
from serve_app.grpc.wire import parse_request, varint

LARGE = b"x" * 40_000


def message(raw: list[bytes]) -> ModelInferRequest:
    request = ModelInferRequest(model_name="m", model_version="1", id="i", raw_input_contents=raw)
    request.parameters["timeout"].int64_param = -7
    request.inputs.add(name="x", datatype="BYTES", shape=[1, 2**62, -1])
    request.outputs.add(name="y")
    return request


@pytest.mark.parametrize("raw", [[], [b""], [b"a", LARGE], [LARGE, b"", LARGE]])
def test_parse_keeps_everything(raw: list[bytes]) -> None:
    parsed, contents = parse_request(message(raw).SerializeToString())
    assert [bytes(each) for each in contents] == raw
    del parsed.raw_input_contents[:]
    assert parsed == message([])


def test_large_contents_are_not_copied() -> None:
    data = message([b"x" * 4_000_000]).SerializeToString()
    tracemalloc.start()
    _, contents = parse_request(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(contents[0], memoryview)
    assert contents[0].obj is data
    assert peak < 100_000


def test_fields_may_come_in_any_order_and_twice() -> None:
    parts = [
        ModelInferRequest(raw_input_contents=[LARGE]).SerializeToString(),
        ModelInferRequest(model_name="first").SerializeToString(),
        ModelInferRequest(raw_input_contents=[b"b"]).SerializeToString(),
        ModelInferRequest(model_name="last").SerializeToString(),
    ]
    parsed, contents = parse_request(b"".join(parts))
    assert parsed.model_name == "last"
    assert [bytes(each) for each in contents] == [LARGE, b"b"]


def test_unknown_fields_of_every_kind_are_skipped() -> None:
    unknown = (
        b"\xf8\x07\x96\x01"  # 127: varint
        + b"\xf9\x07"
        + b"\0" * 8  # 127: 64 bits
        + b"\xfd\x07"
        + b"\0" * 4  # 127: 32 bits
        + b"\xfa\x07\x02ab"  # 127: bytes
        + b"\xfb\x07\x08\x01\xfc\x07"  # 127: a group
    )
    data = message([LARGE]).SerializeToString()
    parsed, contents = parse_request(unknown + data + unknown)
    assert parsed.model_name == "m"
    assert [bytes(each) for each in contents] == [LARGE]
    assert isinstance(contents[0], memoryview)


@pytest.mark.parametrize("group", [b"", b"\xfb\x07\xfc\x07"])
def test_a_message_of_countless_fields_is_not_even_parsed(group: bytes) -> None:
    empty_inputs = b"\x2a\0" * 50_000  # protobuf makes 44 times as many bytes of them
    with pytest.raises(PayloadTooLarge):
        parse_request(group + empty_inputs + message([LARGE]).SerializeToString())


@given(
    st.binary(max_size=60),
    st.integers(0, 60),
    st.sampled_from([b"", b"\x3a\x03abc", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"]),
)
@example(b"\x3a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 0, b"")
def test_junk_is_read_as_protobuf_reads_it(junk: bytes, at: int, field: bytes) -> None:
    data = junk[:at] + field + junk[at:]
    cut = wire._cut(data)
    try:
        expected = ModelInferRequest.FromString(data)
    except DecodeError:
        if cut is not None:
            with pytest.raises(DecodeError):
                ModelInferRequest.FromString(cut[0])
        return
    if cut is not None:
        rest, raw = cut
        parsed = ModelInferRequest.FromString(rest)
        parsed.raw_input_contents.extend([bytes(each) for each in raw])
        assert parsed == expected


@pytest.mark.parametrize(
    "data", [b"\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe", b"\x3a\xc0\xb8\x02" + LARGE + b"\xff"]
)
def test_bytes_that_are_no_message_are_the_clients_fault(data: bytes) -> None:
    with pytest.raises(MalformedRequest):
        parse_request(data)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**21, 2**35])
def test_varint(number: int) -> None:
    parsed, end = wire._read_varint(varint(number), 0)
    assert parsed == number
    assert end == len(varint(number))
