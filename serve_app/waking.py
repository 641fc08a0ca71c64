"""Starts a replica of a version that sleeps, while somebody waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from serve_app.domain.gateway import Gateway
from serve_app.domain.inference import VersionKey
from serve_app.errors import ReplicaLost, ServeAppError

logger = logging.getLogger(__name__)

_AGAIN_S = 0.5
"""How long to wait with the next attempt when a replica died as soon as it was up."""


class Waker:
    """Wakes one version. Belongs to one event loop.

    Args:
        key: the version.
        gateway: starts its replicas.
        asleep: whether it has none.
        ended: told that a replica is up, or why there will be none; not after `stop`.
    """

    def __init__(
        self,
        key: VersionKey,
        gateway: Gateway,
        asleep: bool,
        ended: Callable[[ServeAppError | None], None],
    ) -> None:
        self._key = key
        self._gateway = gateway
        self.asleep = asleep
        """Whether the version has no replica, and is given one as soon as somebody waits."""
        self._ended = ended
        self._task: asyncio.Task[None] | None = None

    def follow(self, asleep: bool) -> None:
        """Takes over what a new route table says."""
        self.asleep = asleep
        if not asleep:
            self.stop()

    def attend(self, *, waiting: bool) -> None:
        """Wakes the version while somebody waits: however many they are, one call is out."""
        if not waiting:
            self.stop()
        elif self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._wake())

    def stop(self) -> None:
        """Nobody waits any more; a start that is under way goes on."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _wake(self) -> None:
        began = monotonic()
        extra = {"action": "wake", **self._key._asdict()}
        error: ServeAppError | None = None
        while True:
            try:
                await self._gateway.wake(self._key)
                self.asleep = False
                logger.info("awake after %.1f s", monotonic() - began, extra=extra)
            except ReplicaLost:
                await asyncio.sleep(_AGAIN_S)
                continue
            except ServeAppError as exc:
                error = exc
            except Exception:
                logger.exception("cannot wake", extra=extra)
                error = ServeAppError()
            self._task = None
            self._ended(error)
            return
