"""What one side of a rollout has served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import floor
from typing import Any, Self

from serve_app.domain.arms import ArmCounts, ShadowCounts
from serve_app.evidence import LatencyHistogram, Moments


@dataclass(slots=True)
class Side:
    """Counts of all versions on one side, pooled: those that gain weight, or those that lose."""

    requests: int = 0
    faults: int = 0
    latency: LatencyHistogram = field(default_factory=LatencyHistogram)
    compared: int = 0
    disagreed: int = 0
    failed: int = 0
    """Shadows that gave no answer; they are shown, and judged by nobody."""
    outcomes: Moments = field(default_factory=Moments)
    """More is better; for labels each is the share of its rows that were right."""

    @property
    def wrong(self) -> int:
        """Outcomes that were wrong, where they are labels; parts count once they make a whole."""
        return floor(self.outcomes.count - self.outcomes.total + 1e-6)

    def add_arm(self, counts: ArmCounts) -> None:
        """One increment of one version; buckets at the end that are empty may be left off.

        Raises:
            ValueError: it has more buckets than there are.
        """
        self.requests += counts.requests
        self.faults += counts.faults
        self.latency.counts[: len(counts.latency)] += counts.latency

    def add_shadow(self, counts: ShadowCounts) -> None:
        """One increment of one version."""
        self.compared += counts.compared
        self.disagreed += counts.disagreed
        self.failed += counts.failed

    def merge(self, other: Side) -> None:
        """Adds all that another has."""
        self.requests += other.requests
        self.faults += other.faults
        self.latency.merge(other.latency)
        self.compared += other.compared
        self.disagreed += other.disagreed
        self.failed += other.failed
        self.outcomes += other.outcomes

    def state(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "requests": [self.requests, self.faults],
            "latency": self.latency.state(),
            "shadows": [self.compared, self.disagreed, self.failed],
            "outcomes": self.outcomes.state(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The reverse of `state`."""
        requests, faults = state["requests"]
        compared, disagreed, failed = state["shadows"]
        return cls(
            requests=requests,
            faults=faults,
            latency=LatencyHistogram.from_state(state["latency"]),
            compared=compared,
            disagreed=disagreed,
            failed=failed,
            outcomes=Moments.from_state(state["outcomes"]),
        )
