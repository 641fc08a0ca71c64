"""The port between the transports and telemetry: one call when a request is over."""

from __future__ import annotations

from typing import Protocol

from serve_app.telemetry.trace import RequestTrace


class Telemetry(Protocol):
    """Hears of every request once. Implementations: `Recorder`, `NullTelemetry`, and a fake."""

    def finish(self, trace: RequestTrace, status: int, code: str) -> None:
        """Counts and logs one finished request.

        Called by the HTTP and the gRPC transport alike, on the event loop; it never raises and
        never waits.

        Args:
            trace: what was measured along the way.
            status: the HTTP status, also for gRPC, where it is the one of the same error.
            code: "ok", or the code of the error.
        """
        ...


class NullTelemetry:
    """Measures nothing."""

    def finish(self, trace: RequestTrace, status: int, code: str) -> None:
        """See `Telemetry`."""
