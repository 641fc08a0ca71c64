"""Finished requests and batches, for the tests of this folder."""

from __future__ import annotations

from typing import Any

from serve_app.domain.inference import BatchResult
from serve_app.telemetry.trace import RequestTrace


def trace(protocol: str = "http", request_id: str = "id", **measured: Any) -> RequestTrace:
    """A trace of digits@2 that went through a batch of 7 rows, unless told otherwise."""
    finished = RequestTrace(protocol, request_id)
    finished.model, finished.version, finished.arm = "digits", "2", "2"
    finished.rows, finished.batch_rows = 1, 7
    finished.queue_s, finished.compute_s = 0.0015, 0.004
    for name, value in measured.items():
        setattr(finished, name, value)
    return finished


def result(compute_s: float = 0.004, **changes: Any) -> BatchResult:
    """The answer to a batch, as far as telemetry looks at it."""
    return BatchResult({}, {}, compute_s)._replace(**changes)
