"""What every RPC shares: what it reads from its context, and how it fails."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import NamedTuple, NoReturn, Protocol

import grpc

from serve_app.domain.request_id import request_id
from serve_app.domain.traceparent import traceparent
from serve_app.errors import ServeAppError
from serve_app.grpc.errors import REQUEST_ID, Metadata, failure
from serve_app.public_error import public_error

logger = logging.getLogger(__name__)

_TRACEPARENT = "traceparent"


class Context(Protocol):
    """The part of `grpc.aio.ServicerContext` that we use."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """The client's metadata."""

    def time_remaining(self) -> float | None:
        """Seconds until the RPC's deadline, 0 past it, None without one."""

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        """What is sent after the answer."""

    async def abort(
        self, code: grpc.StatusCode, details: str, trailing_metadata: Metadata
    ) -> NoReturn:
        """Ends the RPC with an error."""


class Caller(NamedTuple):
    """What a client's metadata says."""

    request_id: str
    """Its `x-request-id`, or a new one."""
    named: bool
    """Whether it sent an `x-request-id`, usable or not, and so looks for one in the answer."""
    traceparent: str
    """Its W3C trace context of version 00; empty if it sent none."""


def caller(context: Context) -> Caller:
    """Reads the metadata of an RPC."""
    given: bytes | None = None
    context_sent = ""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID and given is None:
            given = value.encode() if isinstance(value, str) else value
        elif key == _TRACEPARENT and isinstance(value, str):
            context_sent = traceparent(value)
    return Caller(request_id(given), given is not None, context_sent)


async def abort(context: Context, error: ServeAppError, identifier: str, version: str) -> NoReturn:
    """Ends the RPC with one of our errors."""
    status, detail, trailers = failure(error, identifier, version)
    await context.abort(status, detail, trailers)


def known(exc: Exception, identifier: str) -> ServeAppError:
    """The error that a client may see in place of `exc`; what nobody expected is logged."""
    error = public_error(exc)
    if error is not exc:
        logger.error(
            "unexpected error", extra={"action": "grpc", "request_id": identifier}, exc_info=exc
        )
    return error
