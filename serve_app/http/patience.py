"""How long a connection has been in the same phase."""

from __future__ import annotations

from collections.abc import Mapping

from serve_app.http.listener_state import Phase
from serve_app.listening.patience import Stillness


class PhaseWatch:
    """Which phase a connection is in, and since which sweep.

    Within one request, `phase` may also just be set.
    """

    __slots__ = ("_limits_s", "_steps", "_stillness", "phase")

    def __init__(self, limits_s: Mapping[Phase, float]) -> None:
        self._limits_s = limits_s
        self.phase = Phase.OPENED
        self._steps = 0
        self._stillness = Stillness()

    def enter(self, phase: Phase) -> None:
        """Starts a phase, also the same one again."""
        self.phase = phase
        self._steps += 1

    def expired(self, now: float) -> bool:
        """Whether the phase has lasted longer than it may; called at every sweep."""
        lasts_s = self._stillness.lasts_s((self._steps, self.phase), now)
        return lasts_s >= self._limits_s[self.phase]
