"""How much a peer may annoy us: resets, settings and pings cost it nothing, and us something."""

from __future__ import annotations

from serve_app.http2.frames import ConnectionFault, ErrorCode

_BURST = 8192
"""A client may cancel all its calls at once, and do so again."""
_PER_S = 200.0
_MIN_PING_S = 10.0
_STRIKES = 2


class Guard:
    """A bucket of annoyances that fills slowly, and a count of pings that come too often.

    Resets stop "rapid reset" (CVE-2023-44487), whichever side the client makes send them.
    """

    __slots__ = ("_at", "_left", "_pinged_at", "_strikes")

    def __init__(self) -> None:
        self._left = float(_BURST)
        self._at = 0.0
        self._pinged_at = float("-inf")
        self._strikes = 0

    def annoy(self, now: float, cost: int = 1) -> None:
        """Takes note of something that we have to bear.

        Raises:
            ConnectionFault: it was too much.
        """
        self._left = min(_BURST, self._left + (now - self._at) * _PER_S) - cost
        self._at = now
        if self._left < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many resets or settings")

    def ping(self, now: float, spoke: bool) -> None:
        """Takes note of a ping.

        Args:
            now: the loop's time.
            spoke: whether we sent HEADERS or DATA since the last one; clients measure with pings
                how fast those come.

        Raises:
            ConnectionFault: there were too many.
        """
        if spoke:
            self._strikes = 0
        elif now - self._pinged_at < _MIN_PING_S:
            self._strikes += 1
            if self._strikes > _STRIKES:
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings")
        self._pinged_at = now
