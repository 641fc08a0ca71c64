"""One timer that looks after many deadlines: one per request would cost more than its routing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from time import monotonic

from serve_app.waiting import Member

_SWEEP_S = 0.005
"""Deadlines are looked at no more often than this."""


class DeadlineWatch:
    """Tells of members whose deadline has passed; belongs to one event loop.

    Args:
        expired: called for each of them, once.
    """

    def __init__(self, expired: Callable[[Member], None]) -> None:
        self._expired = expired
        self._loop = asyncio.get_running_loop()
        self._live: set[Member] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = inf  # by `monotonic`

    def add(self, member: Member) -> None:
        """Watches over a member until `discard`."""
        self._live.add(member)
        if member.deadline < self._due:
            self._watch(member.deadline)

    def discard(self, member: Member) -> None:
        """This member is done."""
        self._live.discard(member)

    def _watch(self, deadline: float) -> None:
        now = monotonic()
        due = max(deadline, now + _SWEEP_S)
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_later(due - now, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        self._due = inf
        now = monotonic()
        for member in [member for member in self._live if member.deadline <= now]:
            self._live.discard(member)
            self._expired(member)
        if self._live:
            self._watch(min([member.deadline for member in self._live]))
