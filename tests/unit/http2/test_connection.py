"""Streams, windows and hostile peers of one connection."""

from __future__ import annotations

import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.http2 import frames
from serve_app.http2.frames import (
    CONTINUATION,
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ErrorCode,
    frame,
)
from tests.unit.http2.wire import GREETING, Peer

MAX = 2**31 - 1


async def test_a_call_is_answered_in_one_piece() -> None:
    peer = Peer()
    before = len(peer.transport.writes)
    peer.send(peer.call(1))
    assert len(peer.transport.writes) == before + 1
    kinds = [(kind, flags, stream) for kind, flags, stream, _ in peer.frames]
    assert kinds == [(HEADERS, END_HEADERS, 1), (DATA, 0, 1), (HEADERS, END_HEADERS | 1, 1)]
    assert peer.data(1) == b"abc"
    assert not peer.connection.streams
    assert peer.state.buffered == 0


async def test_headers_that_repeat_are_read_once_until_the_table_changes() -> None:
    peer = Peer()
    for stream in range(1, 21, 2):
        peer.send(peer.call(stream))
    assert peer.app.read == 2  # as literals, then by their place in the table
    peer.send(peer.call(21, b"", ("new", "entry")))
    peer.send(peer.call(23), peer.call(25))
    assert peer.app.read == 4
    assert [each.head for each in peer.app.made[:10]] == [peer.app.made[0].head] * 10
    assert peer.app.made[-1].head == peer.app.made[0].head
    assert len(peer.app.made) == 13


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_wherever_the_network_cuts(size: int) -> None:
    whole, cut = Peer(), Peer(greet=False)
    data = GREETING + b"".join(
        [
            whole.call(1, bytes(50)),
            frame(DATA, 0, 1, b"late"),
            frame(HEADERS, 0, 3, (block := whole.block(("a", "b")))[:4]),
            frame(CONTINUATION, 0, 3, b""),
            frame(CONTINUATION, END_HEADERS, 3, block[4:]),
            frame(DATA, 0x8 | END_STREAM, 3, b"\x03abcd\0\0\0"),
            frame(99, 0, 0, b"unknown"),
            frame(frames.PRIORITY, 0, 5, bytes(5)),
            frame(PING, 0, 0, b"12345678"),
            frame(GOAWAY, 0, 0, bytes(20)),
        ]
    )
    whole.connection.data_received(data[len(GREETING) :])
    for start in range(0, len(data), size):
        cut.send(data[start : start + size])
    assert cut.transport.written == whole.transport.written
    assert whole.data(3) == b"abcd"
    assert whole.of(PING) == [(PING, 1, 0, b"12345678")]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.builds(
                frame,
                st.integers(0, 11),
                st.integers(0, 255),
                st.integers(0, 9),
                st.binary(max_size=40),
            ),
        ),
        max_size=20,
    )
)
async def test_no_bytes_break_a_connection(parts: list[bytes]) -> None:
    peer = Peer()
    peer.send(peer.call(1), peer.headers(3))
    for part in parts:
        peer.send(part)
    if peer.goaway:
        assert peer.transport.ended
        assert not peer.connection.streams
    peer.connection.connection_lost(None)
    assert peer.state.buffered == 0
    assert all(each.events[-1:] in (["end"], ["gone"]) for each in peer.app.made)


FAULTS = {
    "stream 0": (frame(HEADERS, 5, 0, b"\x82"), ErrorCode.PROTOCOL_ERROR),
    "even stream": (frame(HEADERS, 5, 2, b"\x82"), ErrorCode.PROTOCOL_ERROR),
    "data before headers": (frame(DATA, 0, 1, b"x"), ErrorCode.PROTOCOL_ERROR),
    "reset before headers": (frames.reset(1, ErrorCode.CANCEL), ErrorCode.PROTOCOL_ERROR),
    "window of nothing": (frames.window_update(1, 1), ErrorCode.PROTOCOL_ERROR),
    "window by 0": (frames.window_update(0, 0), ErrorCode.PROTOCOL_ERROR),
    "window overflow": (frames.window_update(0, MAX), ErrorCode.FLOW_CONTROL_ERROR),
    "push promise": (frame(5, 4, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "lonely continuation": (frame(CONTINUATION, 4, 1, b""), ErrorCode.PROTOCOL_ERROR),
    "block interrupted": (
        frame(HEADERS, 0, 1, b"") + frame(PING, 0, 0, bytes(8)),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "padding": (frame(HEADERS, 0x8 | 4, 1, b"\x05abc"), ErrorCode.PROTOCOL_ERROR),
    "ping size": (frame(PING, 0, 0, b"1"), ErrorCode.FRAME_SIZE_ERROR),
    "settings size": (frame(SETTINGS, 0, 0, b"1"), ErrorCode.FRAME_SIZE_ERROR),
    "settings on a stream": (frame(SETTINGS, 0, 1, b""), ErrorCode.PROTOCOL_ERROR),
    "initial window": (
        frames.settings({INITIAL_WINDOW_SIZE: 2**31}),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "frame size": (frames.settings({5: 100}), ErrorCode.PROTOCOL_ERROR),
    "too large": (frames.frame_head(DATA, 0, 1, 2**20 + 1), ErrorCode.FRAME_SIZE_ERROR),
    "compression": (frame(HEADERS, 5, 1, b"\xff\xff\xff\xff\xff"), ErrorCode.COMPRESSION_ERROR),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_faults_end_the_connection(name: str) -> None:
    data, code = FAULTS[name]
    peer = Peer()
    peer.send(data)
    assert peer.goaway == [code]
    assert peer.transport.ended


@pytest.mark.parametrize(
    "block",
    [
        [(":method", "POST"), (":path", "/")],
        [(":method", "POST"), (":method", "POST"), (":scheme", "x"), (":path", "/")],
        [("a", "b"), (":method", "POST"), (":scheme", "x"), (":path", "/")],
        [(":method", "POST"), (":scheme", "x"), (":path", "/"), (":status", "200")],
        [(":method", "POST"), (":scheme", "x"), (":path", "/"), ("Upper", "x")],
        [(":method", "POST"), (":scheme", "x"), (":path", "/"), ("connection", "x")],
        [(":method", "POST"), (":scheme", "x"), (":path", "/"), ("te", "gzip")],
        [(":method", "POST"), (":scheme", "x"), (":path", "")],
        [(":method", "POST"), (":scheme", "x"), (":path", "/a\n")],
        [(":method", "POST"), (":scheme", "x"), (":path", "/"), ("a", "b\r\nc: d")],
        [(":method", "POST"), (":scheme", "x"), (":path", "/"), ("a", "b\0")],
        [(":method", "POST"), (":scheme", "x"), (":path", "/"), ("a b", "c")],
        [(":method", "POST"), (":scheme", "x"), (":path", "/"), ("a:b", "c")],
        [(":method", "POST"), (":scheme", "x"), (":path", "/"), ("größe", "c")],
    ],
)
async def test_headers_that_are_no_request_cost_their_stream(block: list[tuple[str, str]]) -> None:
    peer = Peer()
    peer.send(frame(HEADERS, 5, 1, peer.encoder.encode(block)), peer.call(3))
    assert peer.resets(1) == [ErrorCode.PROTOCOL_ERROR]
    assert peer.finished(3)


async def test_frames_on_streams_that_are_over() -> None:
    peer = Peer()
    peer.send(peer.headers(1, ("wait", "1"), end=True), frame(DATA, 0, 1, b"x"))
    assert peer.resets(1) == [ErrorCode.STREAM_CLOSED]
    assert peer.app.made[0].events == ["end", "gone"]
    peer.send(
        frame(DATA, 0, 1, b"x"), frames.window_update(1, 5), frames.reset(1, ErrorCode.CANCEL)
    )
    peer.send(peer.call(3))
    assert peer.finished(3)
    assert not peer.goaway
    peer.send(peer.headers(1))
    assert peer.goaway == [ErrorCode.STREAM_CLOSED]


async def test_trailers_are_ignored() -> None:
    peer = Peer()
    peer.send(peer.headers(1), frame(DATA, 0, 1, b"abc"), frame(HEADERS, 5, 1, b"\x0f\x10\0"))
    assert peer.data(1) == b"abc"
    assert peer.finished(1)


# Windows


async def test_an_answer_waits_for_both_windows_and_trailers_for_the_data() -> None:
    peer = Peer()
    peer.send(frames.settings({INITIAL_WINDOW_SIZE: 10}), peer.call(1, b"", ("size", "100000")))
    assert len(peer.data(1)) == 10
    assert not peer.finished(1)
    assert peer.state.buffered == 100_000
    peer.send(peer.window(1, 5))
    assert len(peer.data(1)) == 15
    peer.send(frames.settings({INITIAL_WINDOW_SIZE: 0}), peer.window(1, 5))
    assert len(peer.data(1)) == 15  # the window is below zero now
    peer.send(frames.settings({INITIAL_WINDOW_SIZE: 1_000_000}))
    assert len(peer.data(1)) == DEFAULT_WINDOW
    assert not peer.finished(1)
    peer.send(peer.window(0, 1_000_000))
    assert len(peer.data(1)) == 100_000
    assert peer.finished(1)
    assert peer.frames[-1][:2] == (HEADERS, END_HEADERS | END_STREAM)
    assert peer.state.buffered == 0


async def test_frames_are_as_large_as_the_peer_allows() -> None:
    peer = Peer()
    peer.send(frames.settings({INITIAL_WINDOW_SIZE: MAX}), peer.window(0, MAX - DEFAULT_WINDOW))
    peer.send(peer.call(1, b"", ("size", "300000")))
    assert max(len(each[3]) for each in peer.of(DATA)) == 2**14
    assert len(peer.data(1)) == 300_000
    peer.send(frames.settings({5: 50_000}), peer.call(3, b"", ("size", "300000")))
    assert max(len(each[3]) for each in peer.of(DATA)) == 50_000


async def test_a_window_may_not_overflow() -> None:
    peer = Peer()
    peer.send(peer.headers(1, ("wait", "1"), end=True), peer.window(1, MAX))
    assert peer.resets(1) == [ErrorCode.FLOW_CONTROL_ERROR]
    peer.send(peer.headers(3, ("wait", "1"), end=True), peer.window(3, MAX - DEFAULT_WINDOW))
    peer.send(frames.settings({INITIAL_WINDOW_SIZE: DEFAULT_WINDOW + 1}))
    assert peer.goaway == [ErrorCode.FLOW_CONTROL_ERROR]


async def test_answers_take_turns() -> None:
    peer = Peer()
    peer.send(frames.settings({INITIAL_WINDOW_SIZE: MAX}))
    for stream in (1, 3):
        peer.send(peer.call(stream, b"", ("size", "200000")))
    peer.send(peer.window(0, 1_000_000))
    assert [each[2] for each in peer.of(DATA)][4:10] == [1, 3, 1, 3, 1, 3]
    assert peer.finished(1)
    assert peer.finished(3)


async def test_a_peer_may_not_send_more_than_its_windows() -> None:
    peer = Peer(stream_window=10)
    peer.send(peer.headers(1), frame(DATA, 0, 1, bytes(11)))
    assert peer.resets(1) == [ErrorCode.FLOW_CONTROL_ERROR]
    peer = Peer(connection_window=70_000, stream_window=1_000_000)
    peer.send(peer.headers(1), frames.frame_head(DATA, 0, 1, 70_001))
    assert peer.goaway == [ErrorCode.FLOW_CONTROL_ERROR]


async def test_windows_are_renewed_also_for_streams_that_are_over() -> None:
    peer = Peer(connection_window=70_000, stream_window=20_000)
    peer.send(peer.headers(1))
    for _ in range(20):
        peer.send(frame(DATA, 0, 1, bytes(10_001)))
    assert not peer.resets()
    peer.send(frames.reset(1, ErrorCode.CANCEL))
    for _ in range(20):
        peer.send(frame(DATA, 0, 1, bytes(10_001)))
    given_back = sum(int.from_bytes(f[3], "big") for f in peer.of(WINDOW_UPDATE, 0))
    assert 400_040 - 70_000 < given_back <= 400_040
    assert not peer.goaway


async def test_who_does_not_read_is_not_read_either_and_then_cut() -> None:
    peer = Peer()
    peer.connection.pause_writing()
    assert not peer.transport.reading
    peer.send(peer.call(1))
    assert not peer.data(1)
    peer.connection.resume_writing()
    assert peer.data(1) == b"abc"
    assert peer.transport.reading
    peer.connection.pause_writing()
    peer.connection.sweep(0.0)
    peer.connection.sweep(29.0)
    assert not peer.transport.closing
    peer.connection.sweep(31.0)
    assert peer.transport.closing


async def test_streams_that_end_while_the_window_is_closed_are_forgotten() -> None:
    peer = Peer()
    peer.send(peer.call(1, b"", ("size", "65535")))  # all that the window takes
    for stream in range(3, 203, 2):
        peer.send(peer.call(stream), frames.reset(stream, ErrorCode.CANCEL))
    made = [weakref.ref(each) for each in peer.app.made]
    assert len(made) == 101
    peer.app.made.clear()
    assert not any(each() for each in made)


async def test_an_answer_that_nobody_takes_is_dropped() -> None:
    peer = Peer()
    peer.send(peer.call(1, b"", ("size", "100000")))
    peer.connection.sweep(0.0)
    peer.connection.sweep(31.0)
    assert peer.resets(1) == [ErrorCode.CANCEL]
    assert peer.app.made[0].events == ["end", "gone"]
    assert peer.state.buffered == 0


async def test_answers_together_are_bounded() -> None:
    peer = Peer(max_buffered_bytes=150_000)
    peer.send(peer.call(1, b"", ("size", "100000")), peer.call(3, b"", ("size", "100000")))
    assert peer.of(HEADERS, 1)
    assert not peer.of(HEADERS, 3)


# Patience


async def test_a_request_that_stops_coming() -> None:
    peer = Peer()
    peer.send(peer.headers(1), peer.headers(3))
    peer.connection.sweep(0.0)
    peer.send(frame(DATA, 0, 1, bytes(70_000)))
    peer.connection.sweep(20.0)
    peer.connection.sweep(31.0)
    assert peer.app.made[1].events == ["stall"]
    assert peer.app.made[0].events == []
    peer.send(frame(DATA, 0, 1, b"x"))
    peer.connection.sweep(51.0)
    assert peer.app.made[0].events == ["stall"]
    assert peer.resets() == [ErrorCode.NO_ERROR] * 2


@pytest.mark.parametrize(
    "data", [b"", b"PRI", GREETING + frame(HEADERS, 0, 1, b""), GREETING + b"\0\0\x05\x01"]
)
async def test_what_begins_must_end(data: bytes) -> None:
    peer = Peer(greet=False)
    if data:
        peer.send(data)
    peer.connection.sweep(0.0)
    if data.startswith(GREETING) and len(data) > len(GREETING) + 8:
        peer.send(frame(CONTINUATION, 0, 1, b""))
    peer.connection.sweep(9.0)
    assert not peer.transport.closing
    peer.connection.sweep(10.5)
    assert peer.transport.closing


async def test_silence_is_asked_about_once_and_then_ended() -> None:
    peer = Peer()
    for now in (0.0, 59.0, 60.5, 61.5):
        peer.connection.sweep(now)
    assert len(peer.of(PING)) == 1
    peer.send(frame(PING, 1, 0, peer.of(PING)[0][3]))
    for now in (62.0, 121.0, 123.0, 141.0):
        peer.connection.sweep(now)
    assert len(peer.of(PING)) == 2
    assert not peer.transport.closing
    peer.connection.sweep(143.0)
    assert peer.transport.closing


# Floods


async def test_floods_of_continuation() -> None:
    peer = Peer()
    peer.send(frame(HEADERS, 0, 1, b""))
    for _ in range(30_000):
        peer.send(frame(CONTINUATION, 0, 1, b""))
    assert peer.goaway == [ErrorCode.ENHANCE_YOUR_CALM]
    assert not peer.app.made


async def test_headers_that_expand_to_too_much() -> None:
    peer = Peer()
    peer.send(peer.headers(1, ("big", "x" * 3000), end=True))
    assert peer.finished(1)
    peer.send(frame(HEADERS, 5, 3, b"\xbe" * 200))
    assert peer.goaway == [ErrorCode.ENHANCE_YOUR_CALM]


async def test_cancelling_thousands_of_calls_is_fine_and_rapid_reset_is_not() -> None:
    peer = Peer()
    for stream in range(1, 4097, 2):
        peer.send(peer.headers(stream, ("wait", "1"), end=True))
    for stream in range(1, 4097, 2):
        peer.send(frames.reset(stream, ErrorCode.CANCEL))
    assert not peer.goaway
    assert not peer.connection.streams
    for stream in range(4097, 40_000, 2):
        peer.send(peer.headers(stream, ("wait", "1"), end=True))
        peer.send(frames.reset(stream, ErrorCode.CANCEL))
    assert peer.goaway == [ErrorCode.ENHANCE_YOUR_CALM]


async def test_resets_that_the_peer_provokes_count_as_well() -> None:
    peer = Peer()
    for stream in range(1, 40_000, 2):
        peer.send(peer.headers(stream, ("wait", "1"), end=True), peer.window(stream, 0))
    assert peer.goaway == [ErrorCode.ENHANCE_YOUR_CALM]


async def test_floods_of_settings() -> None:
    peer = Peer()
    for _ in range(1000):
        peer.send(frames.settings({}))
    assert peer.goaway == [ErrorCode.ENHANCE_YOUR_CALM]


async def test_pings_are_fine_while_we_send_and_too_many_else() -> None:
    peer = Peer()
    ping = frame(PING, 0, 0, bytes(8))
    for stream in range(1, 41, 2):
        peer.send(peer.call(stream), ping)
    assert not peer.goaway
    peer.send(ping, ping)
    assert not peer.goaway
    peer.send(ping)
    assert peer.goaway == [ErrorCode.ENHANCE_YOUR_CALM]


async def test_streams_beyond_the_limit_may_come_again() -> None:
    peer = Peer(max_streams=2)
    for stream in (1, 3, 5):
        peer.send(peer.headers(stream, ("wait", "1"), end=True))
    assert peer.resets() == [ErrorCode.REFUSED_STREAM]
    peer.send(frames.reset(1, ErrorCode.CANCEL), peer.call(7))
    assert peer.finished(7)


# The end


def pong(peer: Peer) -> bytes:
    return frame(PING, 1, 0, peer.of(PING)[-1][3])


async def test_a_farewell_loses_no_request_that_crosses_it() -> None:
    peer = Peer()
    peer.send(peer.headers(1, ("wait", "1"), end=True))
    peer.state.drain(5.0)
    assert peer.of(GOAWAY)[0][3][:4] == MAX.to_bytes(4, "big")
    peer.send(peer.call(3), pong(peer), peer.call(5))
    assert peer.finished(3)
    assert not peer.of(HEADERS, 5)
    assert peer.of(GOAWAY)[1][3][:4] == (3).to_bytes(4, "big")
    assert peer.goaway == [ErrorCode.NO_ERROR] * 2
    assert not peer.transport.ended
    peer.app.made[0].answer(b"\x88", b"", b"", b"\x88")
    assert peer.finished(1)
    assert peer.transport.ended
    peer.send(peer.call(7))
    peer.connection.sweep(0.0)
    peer.connection.sweep(2.5)
    assert peer.transport.closing


async def test_a_slow_reader_gets_the_rest_of_its_answer_before_the_end() -> None:
    peer = Peer()
    peer.state.drain(5.0)
    peer.send(pong(peer))
    assert peer.transport.ended
    now = 0.0
    for left in (200_000, 90_000, 40_000, 0):
        peer.transport.unsent = left
        now += 20.0
        peer.connection.sweep(now)
        assert not peer.transport.closing
    peer.connection.sweep(now + 2.5)
    assert peer.transport.closing


async def test_a_reader_that_stands_still_at_the_end_is_cut() -> None:
    peer = Peer()
    peer.state.drain(5.0)
    peer.send(pong(peer))
    for now, left in enumerate(range(200_000, 196_000, -1000)):
        peer.transport.unsent = left
        peer.connection.sweep(10.0 * now)
    assert peer.transport.closing


async def test_age_and_a_peer_that_does_not_answer_the_farewell() -> None:
    peer = Peer(max_connection_age_s=10.0)
    now = peer.connection._loop.time()
    peer.connection.sweep(now + 8.9)
    assert not peer.goaway
    peer.connection.sweep(now + 11.1)
    peer.connection.sweep(now + 11.2)
    assert len(peer.goaway) == 1
    peer.connection.sweep(now + 17.0)
    assert len(peer.goaway) == 2
    assert peer.transport.ended


async def test_connections_beyond_the_limit() -> None:
    peer = Peer(max_connections=0, greet=False)
    assert peer.transport.closing


async def test_the_end_of_the_connection_reaches_every_stream() -> None:
    peer = Peer()
    peer.send(peer.headers(1), peer.headers(3, ("wait", "1"), end=True))
    peer.connection.connection_lost(None)
    assert [each.events[-1] for each in peer.app.made] == ["gone", "gone"]
    assert peer.state.connections == set()


async def test_reset_of_a_stream_that_waits_for_its_window() -> None:
    peer = Peer()
    peer.send(peer.call(1, b"", ("size", "100000")), frame(RST_STREAM, 0, 1, bytes(4)))
    peer.send(peer.window(0, 1_000_000), peer.call(3))
    assert peer.finished(3)
    assert peer.state.buffered == 0
