"""How busy a replica is, measured by itself: what autoscaling looks at."""

from __future__ import annotations

from collections.abc import Hashable
from threading import Lock
from time import monotonic
from typing import NamedTuple

_FRESH_S = 2.0
"""An ingress that has sent nothing for this long has no backlog any more."""


class Load(NamedTuple):
    """Averages since the last sample."""

    ongoing: float
    """Batches in work or waiting in the replica."""
    backlog: float
    """Batches that wait in the ingresses for this version, by what they said last."""
    utilisation: float
    """Share of the time in which the model computed, 0 to 1."""
    queue_delay_s: float
    """How long a batch waited in the replica, on average."""


class LoadMeter:
    """Adds up what the batches of one replica tell; may be used from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._sampled = self._changed = monotonic()
        self._ongoing = self._computing = 0
        self._ongoing_s = 0.0
        self._computed_s = 0.0
        self._queued_s = 0.0
        self._batches = 0
        self._backlogs: dict[Hashable, tuple[float, float]] = {}

    def arrived(self, source: Hashable, rows: int, backlog: int, waited_s: float = 0.0) -> None:
        """A batch has come.

        Args:
            source: who sent it.
            rows: how many it has.
            backlog: rows that wait there for the next one.
            waited_s: how long it has been here already, unread.
        """
        with self._lock:
            now = self._pass_time()
            self._ongoing += 1
            # What it waited in earlier samples is past: it must not count in this one.
            self._ongoing_s += min(waited_s, now - self._sampled)
            self._backlogs[source] = (now, backlog / max(rows, 1))

    def left(self, batches: int = 1) -> None:
        """Batches have been answered, or given up."""
        with self._lock:
            self._pass_time()
            self._ongoing -= batches

    def begins(self, queued_s: float) -> None:
        """The model begins with a batch that has waited for so long."""
        with self._lock:
            self._pass_time()
            self._computing += 1
            self._batches += 1
            self._queued_s += queued_s

    def ends(self) -> None:
        """The model is done with it."""
        with self._lock:
            self._pass_time()
            self._computing -= 1

    def sample(self) -> Load:
        """The averages since the last call."""
        with self._lock:
            now = self._pass_time()
            elapsed_s = max(now - self._sampled, 1e-6)
            self._backlogs = {
                source: entry
                for source, entry in self._backlogs.items()
                if now - entry[0] <= _FRESH_S
            }
            load = Load(
                self._ongoing_s / elapsed_s,
                sum(waiting for _, waiting in self._backlogs.values()),
                min(1.0, self._computed_s / elapsed_s),
                self._queued_s / max(self._batches, 1),
            )
            self._sampled = now
            self._ongoing_s = self._computed_s = self._queued_s = 0.0
            self._batches = 0
            return load

    def _pass_time(self) -> float:
        now = monotonic()
        self._ongoing_s += self._ongoing * (now - self._changed)
        self._computed_s += self._computing * (now - self._changed)
        self._changed = now
        return now
