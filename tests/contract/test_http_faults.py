"""Hostile and broken clients, with plain sockets against the real listener."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from tests.contract.live_http import LiveServer, live_server

INFER = b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\n"
BODY = b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}'
CAP = 256 * 1024


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    """Patient enough for honest clients, and soon done with the others."""
    with live_server(
        max_body_bytes=CAP,
        max_header_bytes=16 * 1024,
        max_headers=50,
        header_timeout_s=0.4,
        body_timeout_s=0.4,
        write_timeout_s=0.4,
        idle_timeout_s=0.6,
    ) as made:
        yield made


@pytest.fixture
def client(server: LiveServer) -> Iterator[socket.socket]:
    with server.connect() as made:
        yield made


class Answer:
    """One response, read from a socket."""

    def __init__(self, reader: Any) -> None:
        line = reader.readline()
        self.status = int(line.split()[1]) if line else 0
        self.headers: dict[str, str] = {}
        while (line := reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            self.headers[name.lower()] = value.strip()
        self.body = reader.read(int(self.headers.get("content-length", 0)))

    @property
    def problem(self) -> Any:
        assert self.headers["content-type"] == "application/problem+json"
        problem = orjson.loads(self.body)
        assert problem["status"] == self.status
        assert problem["request_id"] == self.headers["x-request-id"]
        return problem


def ask(client: socket.socket, data: bytes) -> Answer:
    client.sendall(data)
    with client.makefile("rb") as reader:
        return Answer(reader)


def ended(client: socket.socket) -> bool:
    """Whether the server ends the connection, after what it may still send."""
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        return True
    return True


def infer(body: bytes = BODY) -> bytes:
    return INFER + b"Content-Length: %d\r\n\r\n" % len(body) + body


def assert_alive(server: LiveServer) -> None:
    with server.connect() as other:
        assert ask(other, infer()).status == 200


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_honest_client(server: LiveServer, client: socket.socket) -> None:
    with client.makefile("rb") as reader:
        for _ in range(3):
            client.sendall(infer())
            answer = Answer(reader)
            assert answer.status == 200
            assert "connection" not in answer.headers
            assert "date" in answer.headers
            assert "server" not in answer.headers


# Slow clients


def test_a_slow_head_is_cut_with_an_answer(client: socket.socket) -> None:
    with client.makefile("rb") as reader:
        try:
            for byte in INFER:
                client.sendall(bytes([byte]))
                time.sleep(0.05)
        except OSError:
            pass
        answer = Answer(reader)
    assert answer.status == 408
    assert answer.problem["code"] == "body_timeout"


def test_a_connection_that_sends_nothing_is_closed(client: socket.socket) -> None:
    assert client.recv(10) == b""


def test_an_idle_connection_is_closed(client: socket.socket) -> None:
    assert ask(client, infer()).status == 200
    assert client.recv(10) == b""


@pytest.mark.parametrize("path", [b"/v2/models/echo/infer", b"/v1/embeddings"])
def test_a_slow_body_is_answered_in_the_shape_of_its_family(
    server: LiveServer, client: socket.socket, path: bytes
) -> None:
    head = b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nx-request-id: slow\r\n"
    answer = ask(client, head + b"Content-Length: 100\r\n\r\n{")
    assert answer.status == 408
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-request-id"] == "slow"
    content = orjson.loads(answer.body)
    assert (content if b"v2" in path else content["error"])["code"] == "body_timeout"
    until(lambda: server.telemetry.finished[-1][1:] == (408, "body_timeout"))
    assert ended(client)


def test_many_slow_clients_hold_nothing_up(server: LiveServer) -> None:
    idle = [server.connect() for _ in range(200)]
    for each in idle:
        each.sendall(b"G")
    assert_alive(server)
    assert all(ended(each) for each in idle)
    for each in idle:
        each.close()
    until(lambda: server.listener.open_connections <= 1)


def test_a_client_that_does_not_read_is_cut(server: LiveServer) -> None:
    rows = b",".join([b"0.123456"] * 4 * 4000)
    body = b'{"inputs":[{"name":"x","shape":[4000,4],"datatype":"FP32","data":[' + rows + b"]}]}"
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.connect(("127.0.0.1", server.http.port))
    deaf.settimeout(10)
    with deaf:
        try:
            for _ in range(60):
                deaf.sendall(infer(body))
        except OSError:
            pass
        until(lambda: server.listener.open_connections == 0)
    assert_alive(server)


def test_a_client_that_reads_slowly_but_steadily_gets_everything(server: LiveServer) -> None:
    rows = b",".join([b"0.123456"] * 4 * 4000)
    body = b'{"inputs":[{"name":"x","shape":[4000,4],"datatype":"FP32","data":[' + rows + b"]}]}"
    with server.connect() as client:
        client.sendall(infer(body))
        got = b""
        while not got.endswith(b"]}]}"):
            piece = client.recv(8192)
            assert piece
            got += piece
            time.sleep(0.01)


# Bodies


def test_a_body_one_byte_over_the_cap_is_refused_by_its_length(client: socket.socket) -> None:
    answer = ask(client, INFER + b"Content-Length: %d\r\n\r\n" % (CAP + 1))
    assert answer.status == 413
    assert answer.problem["code"] == "payload_too_large"
    assert answer.headers["connection"] == "close"


def test_the_refusal_reaches_a_client_that_sends_everything_first(client: socket.socket) -> None:
    size = 4 * 1024 * 1024
    answer = ask(client, INFER + b"Content-Length: %d\r\n\r\n" % size + bytes(size))
    assert answer.status == 413


def test_a_chunked_body_over_the_cap_is_refused_while_it_comes(
    server: LiveServer, client: socket.socket
) -> None:
    head = INFER + b"Transfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    answer = ask(client, head + chunk * 16)
    assert answer.status == 413
    assert ended(client)
    assert_alive(server)


def test_a_body_of_exactly_the_cap_is_read(client: socket.socket) -> None:
    assert ask(client, infer(BODY + b" " * (CAP - len(BODY)))).status == 200


@pytest.mark.parametrize("chunks", [1, 5, len(BODY)])
def test_chunked_bodies(client: socket.socket, chunks: int) -> None:
    size = -(-len(BODY) // chunks)
    parts = [BODY[start : start + size] for start in range(0, len(BODY), size)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    head = INFER + b"Transfer-Encoding: chunked\r\n\r\n"
    assert ask(client, head + framed + b"0\r\nX-Trailer: ignored\r\n\r\n").status == 200


def test_a_million_tiny_chunks(server: LiveServer) -> None:
    with server.connect() as client:
        client.sendall(INFER + b"Transfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(1000):
                client.sendall(b"1\r\nx\r\n" * 1000)
        except OSError:
            pass
        with client.makefile("rb") as reader:
            assert Answer(reader).status in (408, 413)
    assert_alive(server)


def test_a_body_shorter_than_announced(client: socket.socket, server: LiveServer) -> None:
    client.sendall(INFER + b"Content-Length: 500\r\n\r\n" + BODY)
    client.shutdown(socket.SHUT_WR)
    assert ended(client)
    until(lambda: server.telemetry.finished[-1][2] in ("client_gone", "body_timeout"))


def test_a_body_longer_than_announced_is_the_next_request_and_broken(
    client: socket.socket,
) -> None:
    client.sendall(INFER + b"Content-Length: %d\r\n\r\n" % (len(BODY) - 1) + BODY)
    with client.makefile("rb") as reader:
        assert Answer(reader).status == 400
    assert ended(client)


def test_a_broken_chunk_is_answered_by_the_application(
    client: socket.socket, server: LiveServer
) -> None:
    answer = ask(client, INFER + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n")
    assert answer.status == 400
    assert answer.problem["code"] == "malformed_request"
    until(lambda: server.telemetry.finished[-1][1:] == (400, "malformed_request"))
    assert ended(client)


@pytest.mark.parametrize(
    "tail",
    [
        b"0\r\nX: " + b"a" * 100_000,
        b"1;" + b"a" * 100_000,
    ],
)
def test_endless_trailers_and_chunk_extensions_are_cut(
    server: LiveServer, client: socket.socket, tail: bytes
) -> None:
    answer = ask(client, INFER + b"Transfer-Encoding: chunked\r\n\r\n" + tail)
    assert answer.status in (408, 431)
    assert_alive(server)


def test_a_client_that_waits_for_100_continue(client: socket.socket) -> None:
    head = INFER + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    client.sendall(head % len(BODY))
    assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert ask(client, BODY).status == 200


def test_a_refused_body_is_not_asked_for(client: socket.socket) -> None:
    head = INFER + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    assert ask(client, head % (CAP + 1)).status == 413


# Heads


BROKEN = {
    "CL and TE": INFER + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE and CL": INFER + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two CL": INFER + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "CL twice": INFER + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "negative CL": INFER + b"Content-Length: -1\r\n\r\n",
    "CL with sign": INFER + b"Content-Length: +1\r\n\r\n",
    "huge CL": INFER + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "TE gzip": INFER + b"Transfer-Encoding: gzip\r\n\r\n",
    "TE gzip, chunked": INFER + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "TE obfuscated": INFER + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "TE with space": INFER + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "obs-fold": INFER + b"A: b\r\n c\r\n\r\n",
    "NUL in value": INFER + b"A: b\x00c\r\n\r\n",
    "NUL in name": INFER + b"A\x00: b\r\n\r\n",
    "bare LF": b"GET /v2 HTTP/1.1\nHost: x\n\n",
    "no Host": b"GET /v2 HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /v2 HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "no version": b"GET /v2\r\n\r\n",
    "wrong version": b"GET /v2 HTTP/3.7\r\nHost: x\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "text": b"hello\r\n\r\n",
    "non-ASCII path": b"GET /v2/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "space in path": b"GET /v2 /x HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT": b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_broken_heads_are_answered_and_closed(
    server: LiveServer, client: socket.socket, data: bytes
) -> None:
    before = len(server.gateway.batches)
    answer = ask(client, data)
    assert answer.status == 400
    assert answer.problem["code"] == "malformed_request"
    assert answer.headers["connection"] == "close"
    assert ended(client)
    assert len(server.gateway.batches) == before


@pytest.mark.parametrize(
    "data",
    [
        INFER + b"A: b\r\n" * 60 + b"\r\n",
        INFER + b"A: " + b"b" * 17_000 + b"\r\n\r\n",
        INFER + b"A: " + b"b" * 100_000,
        b"GET /v2/" + b"a" * 17_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/" + b"a" * 100_000,
        b"".join([INFER, *[b"A%d: b\r\n" % n for n in range(200)], b"\r\n"]),
    ],
)
def test_heads_that_are_too_large(client: socket.socket, data: bytes) -> None:
    answer = ask(client, data)
    assert answer.status == 431
    assert answer.problem["code"] == "headers_too_large"
    assert ended(client)


@pytest.mark.parametrize("value", [b"b" * 17_000, b"b" * 400], ids=["one", "many"])
def test_a_large_head_behind_another_request_is_seen(client: socket.socket, value: bytes) -> None:
    # In one piece: the cap must not start anew in the middle of what was read at once.
    headers = b"".join([b"A: %b\r\n" % value] * max(1, 17_000 // len(value)))
    line = b"GET /v2 HTTP/1.1\r\nHost: x\r\n"
    client.sendall(line + b"\r\n" + line + headers + b"\r\n")
    with client.makefile("rb") as reader:
        assert Answer(reader).status == 200
        assert Answer(reader).status in (0, 431)
    assert ended(client)


def test_a_head_of_nearly_the_cap_is_read(client: socket.socket) -> None:
    head = b"".join(b"A%d: %b\r\n" % (n, b"b" * 390) for n in range(40))
    with client.makefile("rb") as reader:
        for _ in range(3):
            client.sendall(INFER + head + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
            assert Answer(reader).status == 200


def test_a_large_body_behind_a_small_head_is_no_large_head(client: socket.socket) -> None:
    assert ask(client, infer(BODY + b" " * 100_000)).status == 200


def test_a_broken_head_of_the_openai_family(client: socket.socket) -> None:
    answer = ask(client, b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nA\x00: b\r\n\r\n")
    assert answer.status == 400
    assert orjson.loads(answer.body)["error"]["code"] == "malformed_request"


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"http://elsewhere/v2/models/echo/infer", 200),
        (b"//v2/models/echo/infer", 404),
        (b"/v2/models/%2e%2e/infer", 404),
        (b"/v2/models/echo%00/infer", 404),
        (b"/v2/models/echo%2fversions%2f1/infer", 404),
        (b"/v2/../v2/models/echo/infer", 404),
        (b"/v2/models/echo/infer?a=b", 200),
        (b"/v2/models/%C3%A9/infer", 404),
        (b"/v2/models/%ff%fe/infer", 404),
        (b"/v2/models/%zz/infer", 404),
        (b"*", 404),
    ],
)
def test_odd_targets(client: socket.socket, target: bytes, status: int) -> None:
    head = b"POST " + target + b" HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    assert ask(client, head + BODY).status == status


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
@pytest.mark.parametrize("split", [0, 100, 190])
def test_upgrades_are_ignored(client: socket.socket, protocol: bytes, split: int) -> None:
    """As some clients offer h2c with a POST; whether or not the body comes with the head."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + protocol + b"\r\n"
    lengths = INFER + offer + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    chunked = INFER + offer + b"Transfer-Encoding: chunked\r\n\r\n"
    chunked += b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    bare = b"GET /v2 HTTP/1.1\r\nHost: x\r\n" + offer + b"\r\n"
    with client.makefile("rb") as reader:
        for request in (lengths, chunked, bare, infer(), lengths + chunked + bare):
            client.sendall(request[:split])
            time.sleep(0.02)
            client.sendall(request[split:])
            for _ in range(3 if request.endswith(bare) and request != bare else 1):
                assert Answer(reader).status == 200


def test_very_many_upgrades_in_one_piece(client: socket.socket, server: LiveServer) -> None:
    offer = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n"
    with client.makefile("rb") as reader:
        client.sendall(offer * 1500)
        assert {Answer(reader).status for _ in range(1500)} == {404}
    assert_alive(server)


def test_head_requests_have_no_body(client: socket.socket) -> None:
    with client.makefile("rb") as reader:
        client.sendall(b"HEAD /v2/models/echo HTTP/1.1\r\nHost: x\r\n\r\n")
        line = reader.readline()
        assert b"405" in line
        while reader.readline() != b"\r\n":
            pass
        client.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert Answer(reader).status == 200


def test_http_1_0_is_answered_and_closed(client: socket.socket) -> None:
    answer = ask(client, b"GET /v2/health/live HTTP/1.0\r\n\r\n")
    assert answer.status == 200
    assert answer.headers["connection"] == "close"
    assert ended(client)


def test_connection_close_is_obeyed(client: socket.socket) -> None:
    data = INFER + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
    assert ask(client, data).headers["connection"] == "close"
    assert ended(client)


# Pipelining


def test_pipelined_requests_are_answered_in_order(client: socket.socket) -> None:
    with client.makefile("rb") as reader:
        for _ in range(3):
            client.sendall(
                b"".join(
                    infer(BODY.replace(b'{"inputs"', b'{"id":"%d","inputs"' % n)) for n in range(50)
                )
            )
            answers = [Answer(reader) for _ in range(50)]
            assert [orjson.loads(each.body)["id"] for each in answers] == [
                str(n) for n in range(50)
            ]


def test_a_broken_request_behind_a_good_one(client: socket.socket) -> None:
    answer = ask(client, infer() + b"broken\r\n\r\n")
    assert answer.status == 200
    assert ended(client)


def test_a_client_that_pipelines_without_reading_is_bounded(server: LiveServer) -> None:
    with server.connect() as greedy:
        greedy.settimeout(1.0)
        before = len(server.telemetry.finished)
        with contextlib.suppress(OSError):
            for _ in range(10_000):
                greedy.sendall(infer() * 100)
        # The kernel alone may take some 30 MB in each direction.
        assert len(server.telemetry.finished) - before < 300_000
    assert_alive(server)


# Clients that leave


def test_work_of_a_client_that_left_is_dropped(server: LiveServer) -> None:
    server.gateway.delay_s = 5.0
    try:
        with server.connect() as client:
            client.sendall(infer())
            until(lambda: server.dataplane.in_flight == 1)
            # An abortive close: the client is gone without goodbye.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        until(lambda: server.dataplane.in_flight == 0)
    finally:
        server.gateway.delay_s = 0.0
    until(lambda: server.telemetry.finished[-1][1:] == (499, "client_gone"))
    assert_alive(server)


def test_pipelined_work_of_a_client_that_left_is_dropped(server: LiveServer) -> None:
    server.gateway.delay_s = 5.0
    batches = len(server.gateway.batches)
    try:
        with server.connect() as client:
            client.sendall(infer() * 3)
            until(lambda: server.dataplane.in_flight == 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        until(lambda: server.dataplane.in_flight == 0)
    finally:
        server.gateway.delay_s = 0.0
    assert len(server.gateway.batches) == batches + 1


# Floods


def test_connections_beyond_the_limit_are_told_so() -> None:
    with live_server(max_connections=8) as server:
        held = [server.connect() for _ in range(8)]
        try:
            for each in held:
                assert ask(each, infer()).status == 200
            with server.connect() as surplus, surplus.makefile("rb") as reader:
                answer = Answer(reader)
                assert answer.status == 503
                assert answer.problem["code"] == "overloaded"
                assert int(answer.headers["retry-after"]) >= 1
                assert ended(surplus)
            assert ask(held[0], infer()).status == 200
        finally:
            for each in held:
                each.close()
        until(lambda: server.listener.open_connections == 0)
        assert_alive(server)


# Bodies that add up


@pytest.fixture
def small() -> Iterator[LiveServer]:
    """A listener that holds the bodies of two large requests, and not of three."""
    with live_server(max_body_bytes=CAP, max_buffered_bytes=2 * CAP + CAP // 2) as made:
        yield made


def held(server: LiveServer) -> int:
    return server.listener._state.buffered


def test_bodies_together_are_bounded(small: LiveServer) -> None:
    large = BODY + b" " * (CAP - len(BODY))
    clients = [small.connect() for _ in range(2)]
    try:
        for each in clients:
            each.sendall(infer(large)[:-1])
        until(lambda: held(small) == 2 * CAP - 2)
        with small.connect() as third:
            answer = ask(third, infer(large))
            assert (answer.status, answer.problem["code"]) == (503, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
            assert ended(third)
        assert_alive(small)
        for each in clients:
            assert ask(each, b" ").status == 200
        until(lambda: held(small) == 0)
        assert ask(clients[0], infer(large)).status == 200
    finally:
        for each in clients:
            each.close()
    until(lambda: held(small) == 0)


def test_a_body_that_comes_in_chunks_counts_too(small: LiveServer) -> None:
    with small.connect() as first, small.connect() as second, small.connect() as third:
        for each in (first, second, third):
            each.sendall(INFER + b"Transfer-Encoding: chunked\r\n\r\n")
        for each in (first, second):
            each.sendall(b"%x\r\n%b\r\n" % (CAP, b" " * CAP))
        until(lambda: held(small) == 2 * CAP)
        answer = ask(third, b"%x\r\n%b\r\n" % (CAP, b" " * CAP))
        assert answer.status == 503
    until(lambda: held(small) == 0)


@pytest.mark.parametrize("pipelined", [1, 5])
def test_clients_that_leave_give_their_share_back(small: LiveServer, pipelined: int) -> None:
    small.gateway.delay_s = 5.0
    with small.connect() as client:
        client.sendall(infer() * pipelined)
        until(lambda: held(small) == len(BODY) * pipelined)
        client.sendall(infer()[:-1])
        until(lambda: held(small) == len(BODY) * (pipelined + 1) - 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: held(small) == 0)


def test_a_broken_request_gives_back_what_waits_behind_another(small: LiveServer) -> None:
    small.gateway.delay_s = 0.3
    with small.connect() as client:
        client.sendall(infer() * 3)
        until(lambda: held(small) == len(BODY) * 3)
        answer = ask(client, b"broken\r\n\r\n")
        assert answer.status == 200
        assert ended(client)
    assert held(small) == 0


def test_an_early_refusal_holds_nothing(small: LiveServer) -> None:
    with small.connect() as client:
        head = b"POST /v2/models/no/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % CAP
        assert ask(client, head).status == 404
        client.sendall(b" " * CAP)
        assert ended(client)
    assert held(small) == 0
