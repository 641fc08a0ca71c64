"""How long a connection has been waiting for the same thing; no timers, no clock per request."""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios
from collections.abc import Mapping

from serve_app.http.listener_state import Phase


class PhaseWatch:
    """Which phase a connection is in, and since which sweep.

    Entering a phase only counts; the sweeper brings the time. A limit is therefore kept to within
    two sweeps, and never early. Within one request, `phase` may also just be set.
    """

    __slots__ = ("_limits_s", "_seen", "_seen_at", "_steps", "phase")

    def __init__(self, limits_s: Mapping[Phase, float]) -> None:
        self._limits_s = limits_s
        self.phase = Phase.OPENED
        self._steps = 0
        self._seen: tuple[int, Phase] | None = None
        self._seen_at = 0.0

    def enter(self, phase: Phase) -> None:
        """Starts a phase, also the same one again."""
        self.phase = phase
        self._steps += 1

    def expired(self, now: float) -> bool:
        """Whether the phase has lasted longer than it may; called at every sweep."""
        seen = (self._steps, self.phase)
        if seen != self._seen:
            self._seen, self._seen_at = seen, now
        return now - self._seen_at >= self._limits_s[self.phase]


class ReaderWatch:
    """Whether a client takes what we send: half of what waits, within each limit.

    So a slow reader gets a large answer, and one that stands still does not hold it for ever.
    """

    __slots__ = ("_limit_s", "_since", "_unsent")

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._unsent = 0
        self._since = 0.0

    def expired(self, now: float, unsent: int) -> bool:
        """Whether the client has stood still for too long; called at every sweep.

        Args:
            now: the loop's time.
            unsent: bytes that wait to be sent.
        """
        if not unsent or not self._unsent or unsent <= self._unsent // 2:
            self._unsent, self._since = unsent, now
        return unsent > 0 and now - self._since >= self._limit_s


def unread_bytes(transport: asyncio.BaseTransport) -> int:
    """What the client has sent that the loop has not read yet.

    Closing a connection over such bytes would reset it, and lose the request that they begin.
    """
    count = bytes(4)
    return int.from_bytes(
        fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.FIONREAD, count),
        sys.byteorder,
    )
