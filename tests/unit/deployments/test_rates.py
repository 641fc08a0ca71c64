"""Rates of a window, from what a node says of itself before and after."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deployments import rates
from deployments.rates import ALL, measure

REQUESTS, BATCHES = "serve_app_request_duration_seconds", "serve_app_batch_size"
FIRST = 'model_name="m",model_version="1"'
SECOND = 'model_name="m",model_version="2"'
TEXT = f"""
# TYPE {REQUESTS} histogram
{REQUESTS}_bucket{{{FIRST},code="ok",le="0.01"}} %(a)d
{REQUESTS}_bucket{{{FIRST},code="ok",le="+Inf"}} %(a)d
{REQUESTS}_count{{{FIRST},code="ok"}} %(a)d
{REQUESTS}_bucket{{{SECOND},code="bad",le="0.01"}} 0
{REQUESTS}_bucket{{{SECOND},code="bad",le="+Inf"}} %(b)d
{REQUESTS}_count{{{SECOND},code="bad"}} %(b)d
# TYPE {BATCHES} histogram
{BATCHES}_bucket{{{FIRST},le="+Inf"}} %(c)d
{BATCHES}_sum{{{FIRST}}} %(a)d
{BATCHES}_count{{{FIRST}}} %(c)d
"""


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A node whose counters have grown each time that somebody looks."""
    monkeypatch.setattr(rates, "WINDOW_S", 0.01)
    looks = 0

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal looks
            looks += 1
            text = TEXT % {"a": 60 * looks, "b": 20 * looks, "c": 15 * looks}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_each_version_and_all_of_a_model(node: str) -> None:
    found = measure(node)
    first, second, both = (found["m", name] for name in ("1", "2", ALL))
    assert (first.errors, second.errors, both.errors) == (0.0, 1.0, 0.25)
    assert first.requests_per_s + second.requests_per_s == pytest.approx(both.requests_per_s)
    assert (first.p50_ms, first.rows_per_batch) == (5.0, 4.0)
    assert (second.p50_ms, second.rows_per_batch) == (10.0, None)
    assert both.p99_ms == 10.0


def test_no_metrics_are_no_rates() -> None:
    assert measure("http://127.0.0.1:9") == {}
