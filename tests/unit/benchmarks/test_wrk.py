"""Reading what wrk prints, and the script that it gets."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks import wrk
from benchmarks.errors import BenchmarkError
from tests.requirements import require_program

Seen = set[tuple[str | None, str | None, bytes]]
"""Content type, user and body."""
GOOD = """\
Running 6s test @ http://127.0.0.1:8000/v2/models/digits/versions/2/infer
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     8.07ms    1.02ms  30.15ms   91.24%
    Req/Sec     7.97k   287.99     8.45k    78.33%
  Latency Distribution
     50%    7.92ms
     75%    8.35ms
     90%    8.96ms
     99%   11.50ms
  47621 requests in 6.01s, 14.53MB read
Requests/sec:   7923.60
Transfer/sec:      2.42MB
"""


def with_percentiles(p50: str, p99: str) -> str:
    return GOOD.replace("7.92ms", p50).replace("11.50ms", p99)


def test_a_good_run() -> None:
    result = wrk.parse(GOOD)
    assert result.answered == 47621
    assert result.errors == result.refused == result.lost == 0
    assert result.seconds == 6.01
    assert result.requests_per_s == pytest.approx(47621 / 6.01)
    assert (result.p50_ms, result.p90_ms, result.p99_ms) == (7.92, 8.96, 11.5)


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [("134.00us", 0.134), ("1.00ms", 1.0), ("2.36s", 2360.0), ("1.50m", 90_000.0), ("0.00us", 0.0)],
)
def test_units_of_latency(text: str, expected_ms: float) -> None:
    result = wrk.parse(with_percentiles(text, text))
    assert result.p50_ms == pytest.approx(expected_ms)
    assert result.p99_ms == pytest.approx(expected_ms)


def test_the_duration_may_be_in_minutes() -> None:
    assert wrk.parse(GOOD.replace("in 6.01s", "in 2.00m")).seconds == 120.0


def test_refused_answers_do_not_count_as_answered() -> None:
    text = GOOD.replace("Requests/sec", "  Non-2xx or 3xx responses: 621\nRequests/sec")
    result = wrk.parse(text)
    assert (result.answered, result.refused, result.errors) == (47000, 621, 621)
    assert result.requests_per_s == pytest.approx(47000 / 6.01)


def test_socket_errors_are_added_up() -> None:
    line = "  Socket errors: connect 1, read 20, write 300, timeout 4000\n"
    result = wrk.parse(GOOD.replace("Requests/sec", f"{line}Requests/sec"))
    assert (result.answered, result.lost, result.errors) == (47621, 4321, 4321)


def test_no_answer_at_all() -> None:
    result = wrk.parse(GOOD.replace("47621", "0"))
    assert (result.answered, result.requests_per_s) == (0, 0.0)


@pytest.mark.parametrize("text", ["", "unable to connect", GOOD.replace("99%   11.50ms", "")])
def test_other_output_is_an_error(text: str) -> None:
    with pytest.raises(BenchmarkError, match="not understood"):
        wrk.parse(text)


def test_a_missing_program_is_said_with_the_way_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(BenchmarkError, match="apt-get install wrk"):
        wrk.run("http://127.0.0.1:1", [b"{}"], 1, 1)


def test_no_bodies_are_an_error() -> None:
    with pytest.raises(BenchmarkError):
        wrk.run("http://127.0.0.1:1", [], 1, 1)


@pytest.fixture
def server() -> Iterator[tuple[str, Seen]]:
    """A server that remembers what it got and refuses those with `bad`."""
    seen: Seen = set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            seen.add((self.headers["content-type"], self.headers["x-user-id"], body))
            self.send_response(400 if b"bad" in body else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            return  # wrk resets its connections when its time is over

    with Server(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}/", seen
        listening.shutdown()
        thread.join()


def test_the_real_program_sends_the_bodies_in_turn(server: tuple[str, Seen]) -> None:
    require_program("wrk", "wrk")
    url, seen = server
    bodies = [b'{"good": "a\\tb"}', '{"bad": "ü€"}'.encode(), bytes(range(256))]
    result = wrk.run(url, bodies, 2, 1)
    assert seen == {("application/json", None, body) for body in bodies}
    assert result.answered > 0
    assert abs(result.answered / result.refused - 2) < 0.5


def test_one_large_body_and_headers_of_its_own(server: tuple[str, Seen]) -> None:
    require_program("wrk", "wrk")
    url, seen = server
    body = bytes(range(256)) * 4096
    result = wrk.run(url, [body], 2, 1, {"content-type": "application/octet-stream"})
    assert seen == {("application/octet-stream", None, body)}
    assert result.answered > 0
    assert result.errors == 0


def test_requests_of_several_users(server: tuple[str, Seen]) -> None:
    require_program("wrk", "wrk")
    url, seen = server
    assert wrk.run(url, [b"even", b"odd"], 2, 1, users=4).errors == 0
    bodies = {f"user-{user}": b"odd" if user % 2 else b"even" for user in range(4)}
    assert seen == {("application/json", user, body) for user, body in bodies.items()}


def test_a_server_that_is_not_there_is_an_error() -> None:
    require_program("wrk", "wrk")
    with pytest.raises(BenchmarkError, match="wrk failed"):
        wrk.run("http://127.0.0.1:1/", [b"{}"], 1, 1)
