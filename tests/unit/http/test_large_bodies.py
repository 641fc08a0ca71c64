"""Bodies that go past the parser into one buffer, and those that do not."""

from __future__ import annotations

import os

import pytest

from serve_app.errors import BodyTimeout
from tests.unit.http.wire import BODY, Wire, head, request, turns

RAW = b"/v2/models/raw/infer"
BINARY = (b"Inference-Header-Content-Length: 0",)
SIZE = 600_000
DATA = os.urandom(SIZE)
FIRST = 100_000


def large(size: int = SIZE) -> bytes:
    return head(size, RAW, *BINARY)


def answered(wire: Wire) -> bytes:
    """The tensor in the last answer."""
    return wire.transport.written[-SIZE:]


@pytest.mark.parametrize("piece", [1000, 65_536, 256_000, SIZE])
async def test_a_large_body_is_whole_however_it_comes(piece: int) -> None:
    wire = Wire()
    sent = large() + DATA
    went_direct = False
    for start in range(0, len(sent), piece):
        wire.send(sent[start : start + piece])
        went_direct |= wire.direct
    await turns()
    assert went_direct is (piece < SIZE)
    assert not wire.direct
    assert wire.statuses == [200]
    assert answered(wire) == DATA
    assert wire.state.buffered == 0


async def test_inputs_over_the_buffer_are_not_copied_and_cannot_be_written() -> None:
    wire = Wire()
    wire.send(large() + DATA[:FIRST])
    wire.send(DATA[FIRST:])
    await turns()
    array = wire.gateway.batches[0][1].inputs["x"]
    assert not array.flags.writeable
    assert not array.flags.owndata


async def test_what_follows_a_large_body_is_the_next_request() -> None:
    wire = Wire()
    tail = request() + large() + DATA[:FIRST]
    wire.send(large() + DATA[:FIRST])
    wire.send(DATA[FIRST:] + tail)
    assert not wire.direct  # the second one waits for its turn
    await turns(20)
    assert wire.statuses == [200, 200]
    wire.send(DATA[FIRST : 2 * FIRST])
    assert wire.direct
    wire.send(DATA[2 * FIRST :] + request())
    await turns(20)
    assert wire.statuses == [200] * 4


async def test_a_body_longer_than_announced_is_the_next_request_and_broken() -> None:
    wire = Wire()
    wire.send(large(SIZE - 1) + DATA[:FIRST])
    wire.send(DATA[FIRST:-1] + b"\0")
    await turns()
    assert wire.statuses == [200]
    assert wire.transport.ended


@pytest.mark.parametrize("direct", [True, False])
async def test_a_large_body_that_is_cut(direct: bool) -> None:
    wire = Wire()
    wire.send(large() + DATA[: FIRST if direct else 1000])
    assert wire.direct is direct
    wire.send(DATA[FIRST : FIRST + 100])
    assert wire.state.buffered
    wire.transport.protocol.connection_lost(None)
    assert wire.outcomes == [(499, "client_gone")]
    assert (wire.state.buffered, wire.dataplane.in_flight) == (0, 0)


async def test_a_large_body_that_stops_coming() -> None:
    wire = Wire()
    wire.send(large() + DATA[:FIRST])
    wire.send(DATA[FIRST : FIRST + 100])
    wire.connection._refuse(BodyTimeout("late"))
    assert wire.outcomes == [(408, "body_timeout")]
    assert wire.transport.ended
    assert not wire.direct
    wire.send(DATA[FIRST:])  # thrown away
    assert wire.statuses == [408]
    assert wire.state.buffered == 0


async def test_large_bodies_together_are_bounded() -> None:
    wire = Wire(max_body_bytes=SIZE, max_buffered_bytes=SIZE)
    wire.state.buffered = SIZE - FIRST - 100
    wire.send(large() + DATA[:FIRST])
    assert wire.direct
    wire.send(DATA[FIRST:])
    assert wire.outcomes == [(503, "overloaded")]
    assert not wire.direct
    assert wire.state.buffered == SIZE - FIRST - 100


async def test_an_announced_length_alone_reserves_nothing() -> None:
    wire = Wire()
    wire.send(head(64 * 1024 * 1024, RAW, *BINARY) + DATA[:1000])
    assert not wire.direct
    assert wire.state.buffered == 1000


async def test_the_events_of_a_transport_reach_the_connection() -> None:
    wire = Wire()
    wire.send(large() + DATA[:FIRST])
    intake = wire.transport.protocol
    intake.pause_writing()
    assert wire.connection.flow.write_paused
    intake.resume_writing()
    assert not wire.connection.flow.write_paused
    assert not intake.eof_received()


async def test_a_large_chunked_body_takes_the_common_way() -> None:
    wire = Wire()
    lines = [b"POST %b HTTP/1.1" % RAW, b"Host: x", b"Transfer-Encoding: chunked", *BINARY]
    wire.send(b"\r\n".join([*lines, b"", b""]))
    for start in range(0, SIZE, 50_000):
        wire.send(b"%x\r\n%b\r\n" % (50_000, DATA[start : start + 50_000]))
        assert not wire.direct
    wire.send(b"0\r\n\r\n")
    await turns()
    assert wire.statuses == [200]
    assert answered(wire) == DATA


async def test_large_json() -> None:
    wire = Wire()
    body = BODY + b" " * 300_000
    sent = request(body)
    wire.send(sent[:FIRST])
    assert wire.direct
    wire.send(sent[FIRST:])
    await turns()
    assert wire.statuses == [200]


async def test_a_large_body_with_a_json_part() -> None:
    text = (
        b'{"inputs":[{"name":"x","shape":[1,%d],"datatype":"UINT8",'
        b'"parameters":{"binary_data_size":%d}}],"parameters":{"binary_data_output":true}}'
    ) % (SIZE, SIZE)
    wire = Wire()
    length = b"Inference-Header-Content-Length: %d" % len(text)
    sent = request(text + DATA, RAW, length)
    wire.send(sent[:FIRST])
    wire.send(sent[FIRST:])
    await turns()
    assert wire.statuses == [200]
    assert answered(wire) == DATA


async def test_a_client_that_waits_for_100_continue_with_a_large_body() -> None:
    wire = Wire()
    wire.send(head(SIZE, RAW, *BINARY, b"Expect: 100-continue"))
    assert wire.transport.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    wire.send(DATA[:FIRST])
    wire.send(DATA[FIRST:])
    await turns()
    assert wire.statuses == [100, 200]


async def test_a_large_body_behind_a_request_in_work_stops_reading() -> None:
    wire = Wire()
    wire.gateway.delay_s = 0.01
    wire.send(request() + large() + DATA[:FIRST])
    assert not wire.transport.reading
    while wire.statuses != [200]:
        await turns()
    assert wire.transport.reading
    assert wire.direct
    wire.send(DATA[FIRST:])
    while wire.statuses != [200, 200]:
        await turns()
