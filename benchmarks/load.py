"""What a load generator reports, whichever it was."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoadResult:
    """One run of a load generator against one server."""

    seconds: float
    answered: int
    """Good answers."""
    refused: int
    """Answers that say no."""
    lost: int
    """Requests without an answer: failed connects, reads and writes, and time-outs."""
    p50_ms: float
    p90_ms: float
    p99_ms: float

    @property
    def requests_per_s(self) -> float:
        """Good answers per second."""
        return self.answered / self.seconds

    @property
    def errors(self) -> int:
        """Everything that was not a good answer."""
        return self.refused + self.lost
