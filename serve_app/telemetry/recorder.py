"""What an ingress uses for telemetry: metrics and access log behind one object."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic

from serve_app.config.cluster import LogConfig
from serve_app.config.listener import MetricsConfig
from serve_app.domain.arms import IngressReport
from serve_app.domain.inference import BatchResult, VersionKey
from serve_app.errors import ClusterError
from serve_app.log import LineHandler
from serve_app.telemetry.access_line import LOGGER
from serve_app.telemetry.access_log import AccessLog
from serve_app.telemetry.exposition import render
from serve_app.telemetry.metrics import RequestMetrics, Watched
from serve_app.telemetry.node import NodeMetrics, NodeTotals
from serve_app.telemetry.scrape import ScrapeApp
from serve_app.telemetry.trace import RequestTrace

logger = logging.getLogger(__name__)

FLUSH_S = 1.0
"""How old another process' numbers can be when this one is scraped."""


class Recorder:
    """The real `Telemetry`: counts every request, and logs it if the config says so.

    Belongs to one event loop. Create it after `configure_logging`.
    """

    def __init__(
        self,
        metrics: MetricsConfig,
        log: LogConfig,
        directory: Path,
        handler: LineHandler | None = None,
    ) -> None:
        """Starts nothing yet.

        Args:
            metrics: whether metrics are kept for scrapes.
            log: whether to write the access log.
            directory: where the processes of this node leave their numbers for each other.
            handler: where access lines go; where all logs go when not given.
        """
        self._metrics = RequestMetrics()
        self._node = NodeMetrics(directory, self._metrics)
        self._scraped = metrics.enabled
        self.scrape_app = ScrapeApp(self._exposition)
        """The ASGI application for the metrics port; whoever composes the process serves it."""
        wanted = log.access and logging.getLogger(LOGGER).isEnabledFor(logging.INFO)
        self._access = AccessLog(handler) if wanted else None
        self._flusher: asyncio.Task[None] | None = None
        self.observe_batch: Callable[[VersionKey, int, BatchResult], None] = (
            self._metrics.observe_batch
        )
        """For `DataPlane`: counts one computed batch."""
        self.count_fallback: Callable[[VersionKey, str], None] = self._metrics.count_fallback
        """For the gateway: counts one batch that could not take the direct channel, and why."""
        self.count_report: Callable[[IngressReport], None] = self._metrics.count_report
        """For the reporter: counts the arms and shadows of one report."""

    def watch(self, plane: Watched, open_connections: Callable[[], int]) -> None:
        """Names the sources of the gauges."""
        self._metrics.watch(plane, open_connections)

    def finish(self, trace: RequestTrace, status: int, code: str) -> None:
        """See `serve_app.telemetry.sink.Telemetry`."""
        seconds = monotonic() - trace.started
        self._metrics.observe_request(trace, code, seconds)
        if self._access is not None and not self._access.append(trace, status, code, seconds):
            self._metrics.count_dropped_line()

    async def start(self) -> None:
        """Starts writing.

        Raises:
            ClusterError: the folder cannot be used.
        """
        if self._scraped:
            try:
                await asyncio.to_thread(self._node.open)
            except OSError as exc:
                raise ClusterError(f"the metrics folder cannot be used: {exc}") from exc
            self._flusher = asyncio.create_task(self._flush())
        if self._access is not None:
            self._access.start()

    async def close(self) -> None:
        """Writes what is left; nothing that was counted is lost."""
        if self._flusher is not None:
            self._flusher.cancel()
            with suppress(asyncio.CancelledError):
                await self._flusher
            self._flusher = None
            await self._write(closing=True)
        if self._access is not None:
            await self._access.close()

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            try:
                await self._write()
            except Exception:  # the next turn may do better, and without a turn nobody would try
                logger.exception("cannot leave the metrics", extra={"action": "metrics"})

    async def _write(self, *, closing: bool = False) -> None:
        """Leaves this process' numbers for the others; they can wait while the disk is full."""
        snapshot = self._node.snapshot(closing=closing)
        try:
            await asyncio.to_thread(self._node.write, snapshot)
        except OSError:
            logger.warning("cannot write the metrics", extra={"action": "metrics"}, exc_info=True)

    async def _exposition(self, accept: str) -> tuple[bytes, str]:
        """The metrics of the node, with this process' newest numbers."""
        await self._write()
        return await asyncio.to_thread(self._render, accept)

    def _render(self, accept: str) -> tuple[bytes, str]:
        totals: NodeTotals = self._node.totals()
        return render(totals, accept)
