"""Finished requests, for the tests of this folder."""

from __future__ import annotations

from typing import Any

from serve_app.telemetry.trace import RequestTrace


def trace(protocol: str = "http", request_id: str = "id", **measured: Any) -> RequestTrace:
    """A trace of digits@2 that went through a batch of 7 rows, unless told otherwise."""
    result = RequestTrace(protocol, request_id)
    result.model, result.version, result.arm = "digits", "2", "2"
    result.rows, result.batch_rows = 1, 7
    result.queue_s, result.compute_s = 0.0015, 0.004
    for name, value in measured.items():
        setattr(result, name, value)
    return result
