"""The port between the connections and what answers their streams."""

from __future__ import annotations

from typing import Protocol

from serve_app.http2.headers import Head, Headers
from serve_app.http2.outlet import Outlet
from serve_app.http2.stream import Stream


class Application(Protocol[Head]):
    """Answers requests."""

    def interpret(self, headers: Headers) -> Head:
        """Reads a request's headers; the result may be used for many requests."""

    def stream(self, outlet: Outlet, stream_id: int, head: Head) -> Stream:
        """Makes what answers a request; it sends nothing before its `on_start`."""
