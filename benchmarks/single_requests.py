"""An open loop of requests whose answers matter one by one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx

PATIENCE_S = 60.0
Note = Callable[[float, httpx.Response], None]
"""Told when a request was sent (`time.monotonic`), and its answer."""


class SingleRequests:
    """Sends at a constant rate, and hands every answer over.

    Args:
        client: sends them.
        url: where to.
        note: gets the answers.
    """

    def __init__(self, client: httpx.AsyncClient, url: str, note: Note) -> None:
        self._client, self._url, self._note = client, url, note
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(
        self, body: bytes, rate: float, seconds: float, until: Callable[[], bool] = lambda: False
    ) -> None:
        """Sends this body for so many seconds, or until something has happened."""
        began = time.monotonic()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            if until():
                return
            task = asyncio.create_task(self._one(body))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Waits for the last answers."""
        await asyncio.gather(*self._tasks)

    async def _one(self, body: bytes) -> None:
        sent = time.monotonic()
        self._note(sent, await self._client.post(self._url, content=body))


@asynccontextmanager
async def patient_client() -> AsyncIterator[httpx.AsyncClient]:
    """A client for as many requests at a time as there are."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S, limits=limits) as client:
        yield client
