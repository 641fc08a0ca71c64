from __future__ import annotations

from time import monotonic

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.channel import frame as codec
from serve_app.channel.frame import (
    MAGIC,
    PREFIX,
    VERSION,
    Frame,
    Kind,
    call_frame,
    failure_frame,
    greeting_frame,
    read_call,
    read_failure,
    read_greeting,
    read_result,
    result_frame,
)
from serve_app.channel.payload import ALIGNMENT, FrameError, TensorHeader
from serve_app.channel.segment import SegmentRef
from serve_app.channel.stream import FrameReader
from serve_app.domain.bytes_tensor import MAX_ELEMENTS, bytes_array
from serve_app.domain.inference import BatchResult, InferenceBatch
from serve_app.domain.raw_tensor import Buffer
from serve_app.errors import NotReady, PayloadTooLarge
from tests.unit.channel.strategies import TEXT, batches, frames, joined, results, same

BATCH = InferenceBatch({"x": np.arange(4, dtype=np.int16)}, (4,), (1.0,), ("r",))
READERS = (read_greeting, read_call, read_failure, lambda frame: read_result(frame, "direct"))


def cut(parts: list[Buffer]) -> Frame:
    """The one frame that these bytes are."""
    data = joined(parts)
    reader = FrameReader()
    found: list[Frame] = []
    for start in range(0, len(data), 64 * 1024):
        piece = data[start : start + 64 * 1024]
        reader.space()[: len(piece)] = piece
        found += reader.received(len(piece))
    (frame,) = found
    return frame


@given(st.integers(1, 2**32 - 1), batches())
def test_a_batch_survives(number: int, batch: InferenceBatch) -> None:
    sent_at = monotonic()
    parts, segment = call_frame(number, batch, sent_at)
    assert segment is None
    frame = cut(parts)
    assert (frame.kind, frame.call) == (Kind.CALL, number)
    received, counted_from = read_call(frame)
    assert counted_from == sent_at
    assert received._replace(inputs={}) == batch._replace(inputs={})
    assert same(received.inputs, batch.inputs)


@given(st.integers(1, 2**32 - 1), results())
def test_a_result_survives(number: int, result: BatchResult) -> None:
    frame = cut(result_frame(number, result))
    assert (frame.kind, frame.call) == (Kind.RESULT, number)
    received = read_result(frame, "direct")
    assert received._replace(outputs={}) == result._replace(outputs={}, transport="direct")
    assert same(received.outputs, result.outputs)


@given(TEXT, st.booleans())
def test_greetings_and_failures_survive(text: str, shares: bool) -> None:
    greeting = read_greeting(cut(greeting_frame(text, shares_memory=shares)))
    assert (greeting.replica, greeting.shares_memory) == (text, shares)
    failure = read_failure(cut(failure_frame(7, NotReady(text))))
    assert (failure.code, failure.detail) == ("not_ready", text)


@given(batches())
def test_tensors_are_aligned_read_only_and_end_with_the_payload(batch: InferenceBatch) -> None:
    data = joined(call_frame(1, batch, 0.0)[0])
    magic, version, kind, _, header, payload = PREFIX.unpack_from(data)
    assert (magic, version, kind) == (MAGIC, VERSION, Kind.CALL)
    start = PREFIX.size + header + -header % ALIGNMENT
    assert start % ALIGNMENT == payload % ALIGNMENT == 0
    assert len(data) == start + payload
    received, _ = read_call(cut([data]))
    plain = [array for array in received.inputs.values() if not array.dtype.hasobject]
    assert not any(array.flags.writeable for array in plain if array.size)
    assert all(array.__array_interface__["data"][0] % ALIGNMENT == 0 for array in plain)


@pytest.mark.parametrize("columns", [0, 1, 8 * 1024, 20_000, 300_000, 2_000_000])
def test_any_size_of_a_tensor(columns: int) -> None:
    inputs = {"x": np.arange(columns, dtype=np.float32), "y": np.ones((1, 3), np.bool_)}
    received, _ = read_call(cut(call_frame(1, BATCH._replace(inputs=inputs), 0.0)[0]))
    assert same(received.inputs, inputs)


@pytest.mark.parametrize(
    "sent_at",
    [-1e7, 1e300, float("nan"), float("inf"), pytest.param(monotonic() + 1e7, id="tomorrow")],
)
def test_a_clock_that_cannot_be_is_not_believed(sent_at: float) -> None:
    before = monotonic()
    _, counted_from = read_call(cut(call_frame(1, BATCH, sent_at)[0]))
    assert before <= counted_from <= monotonic()


def damaged_call(**changes: object) -> Frame:
    """A call whose header says something else than its payload."""
    frame = cut(call_frame(1, BATCH, 1.0)[0])
    header = codec._decoded(codec._CALL, frame)
    for name, value in changes.items():
        setattr(header, name, value)
    return frame._replace(header=memoryview(codec._encode(header)))


def tensor(**changes: object) -> dict[str, object]:
    fields = {"name": "x", "datatype": "INT16", "shape": (4,), "size": 8, **changes}
    return {"tensors": (TensorHeader(**fields),)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": ()},
        {"rows": (1, 2)},
        {"rows": (-1,)},
        {"budgets_s": (1.0, 1.0)},
        {"request_ids": ()},
        {"traceparents": ("a", "b")},
        {"slice_rows": -1},
        {"backlog": -1},
        {"rows": ("4",)},
        {"rows": None},
        {"sent_at": "now"},
        {"tensors": ()},
        tensor(datatype="INT15"),
        tensor(datatype="BYTES"),
        tensor(datatype="BYTES", shape=(2**62,)),
        tensor(size=-8),
        tensor(size=6),
        tensor(size=2**63),
        tensor(shape=(5,)),
        tensor(shape=(-4,)),
        tensor(shape=(2, 2, 2)),
        tensor(shape=(1,) * 33),
        tensor(shape=(0, 2**63 - 1), size=0),
        tensor(shape=(2**32, 2**32, 0), size=0),
        tensor(shape=(2**64 - 1,)),
        tensor(shape=()),
        tensor(name=None),
        {"tensors": tensor()["tensors"] * 2},  # type: ignore[operator]
    ],
    ids=str,
)
def test_a_call_that_contradicts_itself_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(FrameError):
        read_call(damaged_call(**changes))


def test_a_segment_is_refused_where_none_can_be() -> None:
    with pytest.raises(FrameError, match="segment"):
        read_call(damaged_call(segment=SegmentRef(3, 1)))


@given(st.binary(max_size=200), st.binary(max_size=64), st.sampled_from(list(Kind)))
def test_random_headers_and_payloads_are_refused_as_such(
    header: bytes, payload: bytes, kind: Kind
) -> None:
    frame = Frame(kind, 1, memoryview(header), memoryview(payload))
    for read in READERS:
        try:
            read(frame)
        except FrameError:
            continue


@given(frames(), st.data())
def test_damaged_headers_are_read_or_refused_and_nothing_else(
    data: bytes, draw: st.DataObject
) -> None:
    frame = cut([data])
    header = bytearray(frame.header)
    if header:
        at = draw.draw(st.integers(0, len(header) - 1))
        header[at : at + 1] = draw.draw(st.binary(max_size=5))
    damaged = frame._replace(header=memoryview(header))
    for read in READERS:
        try:
            read(damaged)
        except FrameError:
            continue


def test_a_header_that_announces_billions_of_elements_costs_nothing() -> None:
    header = memoryview(b"\x99" + bytes(8) + b"\xdd\xff\xff\xff\xff\x01")
    for read in READERS:
        with pytest.raises(FrameError):
            read(Frame(Kind.CALL, 1, header, memoryview(b"")))


def test_what_the_other_side_would_refuse_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_FRAME_BYTES", 100_000)
    long = {"x": np.zeros(100_000, np.uint8)}
    with pytest.raises(PayloadTooLarge):
        call_frame(1, BATCH._replace(inputs=long), 0.0)
    with pytest.raises(PayloadTooLarge):
        result_frame(1, BatchResult(long, {}, 0.0))


def test_a_batch_may_hold_more_elements_of_bytes_than_one_request() -> None:
    count = MAX_ELEMENTS + 1
    many = {"x": bytes_array([b"a"] * count, (count,))}
    parts, _ = call_frame(1, BATCH._replace(inputs=many), 0.0)
    batch, _ = read_call(cut(parts))
    assert batch.inputs["x"].shape == (count,)
    assert batch.inputs["x"][-1] == b"a"


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_a_computation_takes_a_time(seconds: float) -> None:
    parts = result_frame(1, BatchResult({}, {}, seconds))
    with pytest.raises(FrameError):
        read_result(cut(parts), "direct")
