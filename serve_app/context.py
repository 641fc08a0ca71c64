"""What the code of this moment works on, for log lines written deep inside it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol


class RequestInProgress(Protocol):
    """What a log line says about a request; `RequestTrace` is one."""

    request_id: str
    model: str
    version: str


current_request: ContextVar[RequestInProgress | None] = ContextVar("current_request", default=None)
"""Set once per request by the transport. The trace itself stands here, not a copy, so that lines
written after the version was chosen carry it as well."""
