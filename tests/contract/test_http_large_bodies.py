"""Large bodies over real sockets, on both event loops: the protocol changes in their midst."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from tests.contract.live_http import LiveServer, live_server
from tests.contract.test_http_faults import Answer, ended, held, infer, until
from tests.contract.test_http_listener import LOOPS

HEAD = (
    b"POST /v2/models/echo_UINT8/infer HTTP/1.1\r\nHost: x\r\n"
    b"Inference-Header-Content-Length: 0\r\n"
)
CAP = 4 * 1024 * 1024
DATA = os.urandom(CAP)


@pytest.fixture(scope="module", params=LOOPS)
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with live_server(LOOPS[request.param], max_body_bytes=CAP, body_timeout_s=0.5) as made:
        yield made


def large(size: int) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % size


def tensor(answer: Answer) -> bytes:
    assert answer.status == 200, answer.body
    body: bytes = answer.body
    return body[int(answer.headers["inference-header-content-length"]) :]


@pytest.mark.parametrize("size", [65_535, 65_536, 131_071, 131_072, 131_073, 602_112, CAP])
@pytest.mark.parametrize("pause_s", [0.0, 0.005])
def test_bodies_arrive_whole(server: LiveServer, size: int, pause_s: float) -> None:
    with server.connect() as client, client.makefile("rb") as reader:
        for _ in range(2):
            client.sendall(large(size))
            for start in range(0, size, 300_000):
                client.sendall(DATA[start : min(size, start + 300_000)])
                time.sleep(pause_s)
            assert tensor(Answer(reader)) == DATA[:size]
        client.sendall(infer())
        assert Answer(reader).status == 200
    until(lambda: held(server) == 0)


def test_large_bodies_one_behind_the_other(server: LiveServer) -> None:
    sizes = [602_112, 70_000, 10, 1_000_000, 200_000]
    with server.connect() as client, client.makefile("rb") as reader:
        for size in sizes:
            client.sendall(large(size) + DATA[:size] + infer())
        for size in sizes:
            assert tensor(Answer(reader)) == DATA[:size]
            assert Answer(reader).status == 200
    until(lambda: held(server) == 0)


def test_a_large_body_that_stops_coming_is_answered(server: LiveServer) -> None:
    with server.connect() as client, client.makefile("rb") as reader:
        client.sendall(large(CAP) + DATA[: CAP // 2])
        answer = Answer(reader)
        assert (answer.status, answer.problem["code"]) == (408, "body_timeout")
        assert ended(client)
    until(lambda: held(server) == 0)


@pytest.mark.parametrize("abrupt", [True, False])
def test_a_large_body_that_is_cut(server: LiveServer, abrupt: bool) -> None:
    with server.connect() as client:
        client.sendall(large(CAP) + DATA[: CAP // 2])
        until(lambda: held(server) == CAP // 2)
        if abrupt:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            client.shutdown(socket.SHUT_WR)
            assert ended(client)
    until(lambda: held(server) == 0)
    assert server.telemetry.finished[-1][1:] == (499, "client_gone")


def test_a_large_body_longer_than_announced(server: LiveServer) -> None:
    with server.connect() as client, client.makefile("rb") as reader:
        client.sendall(large(602_112) + DATA[:602_112] + b"more\r\n\r\n")
        assert tensor(Answer(reader)) == DATA[:602_112]
        assert Answer(reader).status in (0, 400)
        assert ended(client)


def test_a_large_body_in_chunks(server: LiveServer) -> None:
    size = 1_000_000
    chunks = [DATA[start : start + 70_000] for start in range(0, size, 70_000)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    with server.connect() as client, client.makefile("rb") as reader:
        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n")
        assert tensor(Answer(reader)) == b"".join(chunks)
        client.sendall(infer())
        assert Answer(reader).status == 200


def test_a_large_body_that_is_refused_reaches_a_client_that_sends_it_all(
    server: LiveServer,
) -> None:
    with server.connect() as client, client.makefile("rb") as reader:
        client.sendall(
            HEAD + b"x-request-timeout-ms: soon\r\nContent-Length: %d\r\n\r\n" % CAP + DATA
        )
        assert Answer(reader).status == 400


def test_draining_answers_a_large_body_that_is_coming() -> None:
    with live_server(body_timeout_s=5.0) as other, other.connect() as client:
        client.sendall(large(CAP) + DATA[: CAP // 2])
        until(lambda: held(other) == CAP // 2)
        other.listener._state.drain(5.0)
        client.sendall(DATA[CAP // 2 :])
        with client.makefile("rb") as reader:
            answer = Answer(reader)
            assert tensor(answer) == DATA
            assert answer.headers["connection"] == "close"
