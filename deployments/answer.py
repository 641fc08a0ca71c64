"""What another process of the cluster answers, and may know of an error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from serve_app.errors import (
    ConfigError,
    Conflict,
    DeploymentConflict,
    InvalidInput,
    NotReady,
    OperatorError,
    PlanRefused,
    ServeAppError,
)


async def answered(ask: Callable[[], Awaitable[Any]], timeout_s: float, who: str) -> Any:
    """Waits for an answer.

    Args:
        ask: asks a handle or an actor.
        timeout_s: give up after this long; what was asked for goes on.
        who: was asked, in words.

    Raises:
        NotReady: there is none in time, or whoever was asked is gone.
        ServeAppError: as it was raised there.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await ask()
    except TimeoutError as error:
        raise NotReady(f"{who} does not answer; inference goes on meanwhile") from error
    except Exception as error:
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, ServeAppError):
            raise type(cause)(*cause.args) from error
        if isinstance(cause, RayError | RayServeException):
            raise NotReady(f"{who} is away; inference goes on meanwhile") from error
        raise


def public(error: BaseException) -> ServeAppError:
    """What whoever asked for a plan or an apply over HTTP may know of its failure."""
    if isinstance(error, ConfigError):
        return InvalidInput(str(error), error.field)
    if isinstance(error, DeploymentConflict | PlanRefused):
        return Conflict(str(error))
    if isinstance(error, OperatorError):
        return NotReady(str(error))
    return ServeAppError()
