"""Starting, sharing a port, and above all stopping: no request may be lost on the way out."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
import uvloop

from serve_app.config.listener import HttpConfig
from serve_app.errors import ClusterError
from serve_app.http.listener import HttpListener
from tests.contract.live_http import HOST, LiveServer, free_port, live_server
from tests.contract.test_http_faults import BODY, Answer, ask, ended, infer, until

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    return LOOPS[request.param]


@pytest.fixture
def server(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[LiveServer]:
    with live_server(new_loop) as made:
        yield made


def test_serves_and_counts_its_connections(server: LiveServer) -> None:
    assert server.listener.listening
    with server.connect() as client:
        assert ask(client, infer()).status == 200
        assert server.listener.open_connections == 1
    until(lambda: server.listener.open_connections == 0)


def test_large_bodies_both_ways(server: LiveServer) -> None:
    rows = 16_000
    data = b",".join([b"0.25"] * rows * 4)
    body = b'{"inputs":[{"name":"x","shape":[%d,4],"datatype":"FP32","data":[%b]}]}' % (rows, data)
    with server.connect() as client:
        answer = ask(client, infer(body))
        assert answer.status == 200
        assert answer.body.count(b"0.25") == rows * 4
        assert ask(client, infer()).status == 200


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        listener = HttpListener(_nothing, HttpConfig(host=HOST, port=port))
        with pytest.raises(ClusterError, match=rf"{port}.*http\.port="):
            await listener.start()
        assert not listener.listening


async def test_a_host_that_is_not_ours_is_named() -> None:
    listener = HttpListener(_nothing, HttpConfig(host="192.0.2.1", port=free_port()))
    with pytest.raises(ClusterError, match=r"192\.0\.2\.1"):
        await listener.start()


async def test_draining_what_never_started_does_nothing() -> None:
    listener = HttpListener(_nothing, HttpConfig(host=HOST, port=free_port()))
    await listener.drain(1.0)
    assert listener.open_connections == 0


async def _nothing(*_: object) -> None:
    raise AssertionError("no request was sent")


def test_a_drained_listener_is_gone(server: LiveServer) -> None:
    started = time.monotonic()
    with server.connect() as idle:
        assert ask(idle, infer()).status == 200
        server.run(server.listener.drain(1.0))
        assert ended(idle)
    assert not server.listener.listening
    assert server.listener.open_connections == 0
    with pytest.raises(ConnectionRefusedError):
        server.connect()
    assert time.monotonic() - started < 8


def test_requests_in_flight_are_answered_and_end_their_connection(server: LiveServer) -> None:
    server.gateway.delay_s = 0.5
    with server.connect() as client, client.makefile("rb") as reader:
        client.sendall(infer())
        until(lambda: server.dataplane.in_flight == 1)
        server.run(server.listener.drain(10.0))
        answer = Answer(reader)
        assert answer.status == 200
        assert answer.headers["connection"] == "close"
        assert reader.read() == b""


def test_a_request_whose_body_still_comes_is_answered(server: LiveServer) -> None:
    with server.connect() as client, client.makefile("rb") as reader:
        client.sendall(infer()[:-10])
        until(lambda: server.listener.open_connections == 1)
        drain = threading.Thread(target=lambda: server.run(server.listener.drain(10.0)))
        drain.start()
        time.sleep(0.2)
        client.sendall(BODY[-10:])
        assert Answer(reader).status == 200
        drain.join()


def test_an_idle_connection_may_be_used_once_more(server: LiveServer) -> None:
    with server.connect() as client:
        assert "connection" not in ask(client, infer()).headers
        drain = threading.Thread(target=lambda: server.run(server.listener.drain(10.0)))
        drain.start()
        time.sleep(1.2)  # as one of many connections that a client takes in turns
        answer = ask(client, infer())
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        drain.join()


def test_a_request_that_meets_the_end_of_its_time_is_answered(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """It has reached this machine, and the loop was too busy to read it."""
    with live_server(new_loop, idle_timeout_s=0.6) as server, server.connect() as client:

        async def sweep_late() -> None:
            time.sleep(0.6)  # noqa: ASYNC251 - holds the loop up, so that nothing is read
            server.listener._sweep()

        assert ask(client, infer()).status == 200
        time.sleep(0.3)  # for a sweep that sees it idle
        late = threading.Thread(target=lambda: server.run(sweep_late()))
        late.start()
        time.sleep(0.1)
        assert ask(client, infer()).status == 200
        late.join()


def test_connections_that_wait_in_the_queue_are_taken_in(server: LiveServer) -> None:
    """They are complete for the client, which may have sent its request already."""

    async def block() -> None:
        time.sleep(0.3)  # noqa: ASYNC251 - holds the loop up, so that nothing is accepted

    holder = threading.Thread(target=lambda: server.run(block()))
    drain = threading.Thread(target=lambda: server.run(server.listener.drain(10.0)))
    holder.start()
    time.sleep(0.05)
    drain.start()
    clients = [server.connect() for _ in range(5)]
    for client in clients:
        client.sendall(infer())
    for client in clients:
        with client, client.makefile("rb") as reader:
            answer = Answer(reader)
            assert (answer.status, answer.headers["connection"]) == (200, "close")
    holder.join()
    drain.join()


def test_what_takes_too_long_is_cut(server: LiveServer) -> None:
    server.gateway.delay_s = 4.0
    with server.connect() as client:
        client.sendall(infer())
        until(lambda: server.dataplane.in_flight == 1)
        server.run(server.listener.drain(0.3))
        assert ended(client)
    until(lambda: server.dataplane.in_flight == 0)


@pytest.mark.parametrize("headers", [{}, {"connection": "close"}], ids=["kept", "fresh"])
def test_replacing_one_of_two_listeners_under_load_fails_no_request(
    new_loop: Callable[[], asyncio.AbstractEventLoop], headers: dict[str, str]
) -> None:
    failures: list[str] = []
    answered = [0] * 8
    over = threading.Event()

    def load(index: int, url: str) -> None:
        with httpx.Client(timeout=10, verify=False) as client:
            while not over.is_set():
                try:
                    response = client.post(
                        f"{url}/v2/models/echo/infer", content=BODY, headers=headers
                    )
                except httpx.HTTPError as error:
                    failures.append(repr(error))
                    return
                if response.status_code != 200:
                    failures.append(response.text)
                answered[index] += 1

    with live_server(new_loop) as first:
        threads = [
            threading.Thread(target=load, args=(index, first.url)) for index in range(len(answered))
        ]
        for thread in threads:
            thread.start()
        try:
            until(lambda: min(answered) > 0 or bool(failures))
            with live_server(new_loop, port=first.http.port) as second:
                for _ in range(2):
                    time.sleep(0.3)
                    second.run(second.listener.drain(10.0))
                    assert second.listener.open_connections == 0
                    second.run(second._start())
            time.sleep(0.2)
        finally:
            over.set()
            for thread in threads:
                thread.join()
    assert failures == []
