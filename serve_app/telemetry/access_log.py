"""One JSON line per request, in the schema of `serve_app.log`, at a fraction of its price.

On the hot path a request leaves one tuple behind; a task turns what has gathered into lines and
has a thread write them at once, a few times per second. The event loop never waits for the disk:
while the thread does, requests gather, and from a certain number on their lines are dropped.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from time import time

from serve_app.log import LineHandler, current_handler
from serve_app.telemetry.access_line import AccessLines, Entry
from serve_app.telemetry.trace import RequestTrace

logger = logging.getLogger(__name__)

INTERVAL_S = 0.2
MAX_BUFFERED = 5_000
"""So many requests are written without waiting for the interval."""
MAX_KEPT = 4 * MAX_BUFFERED
"""So many requests are kept while the writer is behind; later ones have no line."""
_SLICE = 200
"""Lines that are formatted in one turn of the event loop: about 0.3 ms."""


class AccessLog:
    """Gathers finished requests and writes them; belongs to one event loop."""

    def __init__(self, handler: LineHandler | None = None) -> None:
        self._handler = handler if handler is not None else current_handler()
        self._lines = AccessLines(self._handler.process)
        self._entries: list[Entry] = []
        self._full = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[None] | None = None

    def append(self, trace: RequestTrace, status: int, code: str, duration_s: float) -> bool:
        """Notes one request.

        Returns:
            Whether there was room for it.
        """
        entries = self._entries
        if len(entries) >= MAX_KEPT:
            return False
        entries.append(
            (
                time(),
                trace.request_id,
                trace.traceparent,
                trace.model,
                trace.version,
                trace.arm,
                trace.fallback_from,
                trace.protocol,
                trace.transport,
                status,
                code,
                duration_s,
                trace.queue_s,
                trace.compute_s,
                trace.rows,
                trace.batch_rows,
            )
        )
        if len(entries) == MAX_BUFFERED:
            self._full.set()
        return True

    def start(self) -> None:
        """Writes a few times per second from now on."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Ends the task and writes what is left."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self._writing is not None:
            await asyncio.wait([self._writing])
        await self.flush()

    async def flush(self) -> None:
        """Writes everything that has gathered, now."""
        self._full.clear()
        entries, self._entries = self._entries, []
        parts: list[str] = []
        try:
            for start in range(0, len(entries), _SLICE):
                parts.append(self._lines.format(entries[start : start + _SLICE]))
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self._entries[:0] = entries
            raise
        if parts:
            write = asyncio.to_thread(self._handler.write, "".join(parts))
            self._writing = asyncio.create_task(write)
            # A thread cannot be cancelled: `close` waits for it.
            await asyncio.shield(self._writing)

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_S):
                    await self._full.wait()
            try:
                await self.flush()
            except Exception:  # those lines are lost, the next ones need not be
                logger.exception("cannot write the access log", extra={"action": "access_log"})
