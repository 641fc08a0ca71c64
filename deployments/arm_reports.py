"""Sends what an ingress has counted of its arms to ModelRouter, once a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from uuid import uuid4

from serve_app.arms import ArmStatistics
from serve_app.domain.arms import IngressReport

logger = logging.getLogger(__name__)

REPORT_S = 1.0
DELIVERY_S = 5.0
"""How long one delivery may take."""
SILENCE = 3
"""After so many rounds without anything to report, an empty report says that this ingress lives:
without traffic a rollout lacks requests, without ingresses it is blind."""

Send = Callable[[IngressReport], Awaitable[None]]


class ArmReports:
    """Numbers reports and delivers each of them once. Belongs to one event loop.

    A report that could not be delivered may have arrived all the same. So it is sent again as it
    is, under its number, and what has been counted since waits for the next one; merged, it could
    count twice.
    """

    def __init__(
        self, arms: ArmStatistics, send: Send, count: Callable[[IngressReport], None]
    ) -> None:
        """Sends nothing yet.

        Args:
            arms: what to report.
            send: takes a report to ModelRouter; raises if it did not arrive, or if nobody knows.
            count: told of each report once, for metrics.
        """
        self._arms = arms
        self._send = send
        self._count = count
        self._ingress = uuid4().hex
        self._sequence = 0
        self._unsent: IngressReport | None = None
        self._silent = 0
        self._failing = False

    async def run(self) -> None:
        """Reports for as long as the process lives."""
        while True:
            await asyncio.sleep(REPORT_S)
            await self.report()

    async def report(self) -> None:
        """Sends what there is; nothing is lost if that fails."""
        report = self._unsent = self._unsent or self._next()
        if report is None:
            return
        try:
            async with asyncio.timeout(DELIVERY_S):
                await self._send(report)
        except Exception:
            if not self._failing:  # once per trouble, not once per second
                logger.warning("no report", extra={"action": "report"}, exc_info=True)
            self._failing = True
        else:
            self._unsent = None
            self._failing = False

    def _next(self) -> IngressReport | None:
        number = self._sequence + 1
        report = self._arms.take(self._ingress, number)
        if report is None:
            self._silent += 1
            if self._silent < SILENCE:
                return None
            report = IngressReport(self._ingress, number, {}, {})
        self._sequence, self._silent = number, 0
        self._count(report)
        return report
