"""The Gateway over Serve's DeploymentHandle. Ray's errors become ours here and nowhere else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container, Iterable
from typing import Any

from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.naming import REPLICA, application_name
from serve_app.domain.inference import BatchResult, InferenceBatch, VersionKey
from serve_app.errors import (
    DeadlineExceeded,
    ModelFailed,
    NotReady,
    Overloaded,
    ReplicaLost,
    ServeAppError,
)

logger = logging.getLogger(__name__)

TRANSPORT = "handle"
LOOK_UPS = 40
LOOK_UP_PAUSE_S = 0.25


class HandleGateway:
    """Sends each batch by one handle call to a replica of its version, on any node."""

    def __init__(self) -> None:
        self._handles: dict[VersionKey, DeploymentHandle[Any]] = {}

    async def prepare(self, keys: Iterable[VersionKey]) -> None:
        """Looks up the handles of versions that are new.

        The look-up asks the Serve controller, so it runs in a thread and never on the way of a
        request.
        """
        for key in set(keys) - self._handles.keys():
            handle = await self._look_up(key)
            if handle is not None:
                self._handles[key] = handle

    def forget(self, kept: Container[VersionKey]) -> None:
        """Drops the handles of versions that are gone; call it when no request goes there now."""
        for key in [key for key in self._handles if key not in kept]:
            del self._handles[key]

    async def _look_up(self, key: VersionKey) -> DeploymentHandle[Any] | None:
        """The handle of a version that runs; None if Serve goes on denying it.

        While Serve imports an application's new document it denies for a second or so that the
        deployment exists, although its old replicas serve.
        """
        for _ in range(LOOK_UPS):
            try:
                return await asyncio.to_thread(
                    serve.get_deployment_handle, REPLICA, application_name(key)
                )
            except (RayServeException, RayError):
                await asyncio.sleep(LOOK_UP_PAUSE_S)
        logger.warning("no handle", extra={"action": "prepare", **key._asdict()})
        return None

    async def call(self, key: VersionKey, batch: InferenceBatch, timeout_s: float) -> BatchResult:
        """See `serve_app.domain.gateway.Gateway`."""
        handle = self._handles.get(key)
        if handle is None:
            raise NotReady(f"{key} has no replica yet")
        response = handle.predict.remote(batch)
        try:
            async with asyncio.timeout(timeout_s):
                result: BatchResult = await response
                return result._replace(transport=TRANSPORT)
        except TimeoutError as error:
            response.cancel()  # type: ignore[no-untyped-call]
            raise DeadlineExceeded("the deadline of the request passed") from error
        except asyncio.CancelledError:
            response.cancel()  # type: ignore[no-untyped-call]
            raise
        except Exception as error:
            raise _translated(key, error) from error

    async def wake(self, key: VersionKey) -> None:
        """See `serve_app.domain.gateway.Gateway`.

        A call that waits at a handle is what makes Serve start the first replica.
        """
        handle = self._handles.get(key)
        if handle is None:
            raise NotReady(f"{key} is not known yet")
        response = handle.describe.remote()
        try:
            await response
        except asyncio.CancelledError:
            response.cancel()  # type: ignore[no-untyped-call]
            raise
        except Exception as error:
            raise _translated(key, error) from error


def _translated(key: VersionKey, error: Exception) -> ServeAppError:
    """Our error for what a handle call raised.

    Over Serve's gRPC transport a replica's exception arrives as itself, over actor calls wrapped in
    a RayTaskError. Its text may be a remote traceback, so none of it goes into ours. Every loss of
    a replica arrives as a RayError.
    """
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, ServeAppError):
        return type(cause)(*cause.args)
    if isinstance(error, BackPressureError):
        return Overloaded(f"all replicas of {key} are busy")
    if isinstance(error, DeploymentUnavailableError):
        return NotReady(f"{key} is not available")
    if isinstance(error, RayError | RayServeException) and not isinstance(error, RayTaskError):
        return ReplicaLost(f"a replica of {key} was lost")
    logger.error("call failed", extra={"action": "call", **key._asdict()}, exc_info=error)
    return ModelFailed("the model failed to compute this request")
