"""Requests that leave at fixed times."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.generator import generating
from benchmarks.open_loop import OpenLoop, complete, due_by, http_request
from benchmarks.running import Running

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
REFUSED = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
REQUEST = http_request("/x", b"{}")


def test_requests_become_due_at_a_constant_rate() -> None:
    assert [due_by(at, 10, 5) for at in (0, 0.09, 0.1, 0.25, 0.4, 9)] == [1, 1, 2, 3, 5, 5]


@pytest.mark.parametrize(
    ("received", "status"),
    [
        (b"", 0),
        (OK[:20], 0),
        (OK[:-1], 0),
        (OK, 200),
        (REFUSED, 503),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
    ],
)
def test_an_answer_is_complete_with_its_body(received: bytes, status: int) -> None:
    assert complete(received) == status


def test_a_whole_request() -> None:
    head, body = REQUEST.split(b"\r\n\r\n")
    assert head.startswith(b"POST /x HTTP/1.1\r\n")
    assert b"content-length: 2" in head
    assert body == b"{}"


Answer = Callable[[int], bytes | None]
"""Number of the request -> the answer; None closes the connection."""


@contextmanager
def serving(answer: Answer) -> Iterator[int]:
    """A server that answers each connection in a thread of its own."""
    count = 0

    def talk(connection: socket.socket) -> None:
        nonlocal count
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, suppress(ConnectionError):
            while connection.recv(65536):
                number, count = count, count + 1
                found = answer(number)
                if found is None:
                    return
                # In two parts, as networks do.
                connection.sendall(found[:10])
                connection.sendall(found[10:])

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def running(port: int) -> Running:
    return Running("a server", f"http://127.0.0.1:{port}", 0, Path(), 0.0)


def test_the_rate_is_held() -> None:
    with serving(lambda number: OK) as port:
        result = OpenLoop(port, [REQUEST], rate=200, seconds=1, connections=4).run()
    assert (result.requests, result.answered, result.refused, result.lost) == (200, 200, 0, 0)
    assert result.seconds > 0.98
    assert 0 < result.p50_ms <= result.p90_ms <= result.p99_ms <= result.max_ms


def test_a_stall_counts_for_every_request_that_was_due_meanwhile() -> None:
    def answer(number: int) -> bytes:
        if number == 20:
            time.sleep(0.5)
        return OK

    with serving(answer) as port:
        result = OpenLoop(port, [REQUEST], rate=100, seconds=1, connections=1).run()
    assert result.answered == 100
    # A closed loop would have seen one late answer. Here those due in the pause waited, too.
    assert result.p90_ms > 300
    assert result.sent_late_p99_ms > 300
    assert result.max_ms >= 500


def test_refused_requests_are_not_answered_ones() -> None:
    with serving(lambda number: REFUSED if number % 4 == 0 else OK) as port:
        result = OpenLoop(port, [REQUEST], rate=200, seconds=0.2, connections=2).run()
    assert (result.answered, result.refused, result.lost) == (30, 10, 0)


def test_broken_connections_lose_one_request_each_and_are_made_anew() -> None:
    with serving(lambda number: None if number in (5, 6) else OK) as port:
        result = OpenLoop(port, [REQUEST], rate=100, seconds=0.3, connections=2).run()
    assert (result.requests, result.answered, result.lost) == (30, 28, 2)


def test_a_generator_of_its_own_ends_when_it_is_asked_for_its_result() -> None:
    with serving(lambda number: OK) as port, generating(running(port), 100, 300) as generator:
        assert not generator.wait(0.5)
        result = generator.result()
    assert 30 <= result["requests"] < 3000
    assert result["answered"] == result["requests"]


def test_a_generator_that_reaches_no_server_is_an_error() -> None:
    with (
        pytest.raises(BenchmarkError, match="ConnectionRefused"),
        generating(running(1), 100, 300),
    ):
        pass


def test_what_is_never_answered_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.open_loop.LATE_S", 0.2)
    done = threading.Event()

    def answer(number: int) -> bytes:
        if number == 3:
            done.wait(10)
        return OK

    with serving(answer) as port:
        try:
            result = OpenLoop(port, [REQUEST], rate=50, seconds=0.2, connections=4).run()
        finally:
            done.set()
    assert (result.requests, result.answered, result.lost) == (10, 9, 1)
