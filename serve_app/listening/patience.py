"""How long a peer has kept us waiting; no timers and no clock per request, only sweeps."""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios
from collections.abc import Hashable


class Stillness:
    """Since which sweep something has been the same.

    Whoever waits only counts; the sweeper brings the time. A limit is therefore kept to within two
    sweeps, and never early.
    """

    __slots__ = ("_seen", "_since")

    def __init__(self) -> None:
        self._seen: Hashable = self  # equals nothing that is shown
        self._since = 0.0

    def lasts_s(self, shown: Hashable, now: float) -> float:
        """For how long the same has been shown; called at every sweep.

        Args:
            shown: anything that changes with progress.
            now: the loop's time.
        """
        if shown != self._seen:
            self._seen, self._since = shown, now
        return now - self._since


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
