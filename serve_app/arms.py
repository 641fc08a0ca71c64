"""What one ingress counts of releases, between two reports to ModelRouter.

Only models that have something to compare are counted (`ModelRoute.measured`). On the hot path: one
dictionary lookup, one bisection, three additions.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import time

from serve_app.domain.arms import (
    ArmCounts,
    Disagreement,
    Exposing,
    Exposure,
    IngressReport,
    ShadowCounts,
)
from serve_app.domain.assignment import key_of, uniform
from serve_app.domain.comparison import predictions
from serve_app.domain.inference import VersionKey
from serve_app.domain.tensor import Array
from serve_app.evidence.histogram import BOUNDS, bound_above

MAX_EXPOSED_ROWS = 20_000
"""Rows of exposures in one report; the rest is dropped, and counted."""
MAX_DISAGREEMENTS = 20
"""In one report."""


class _Arm:
    """The increments of one arm."""

    __slots__ = ("faults", "latency", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.faults = 0
        self.latency = [0] * (len(BOUNDS) + 1)


class ShadowTally:
    """The increments of one mirrored version."""

    __slots__ = ("compared", "disagreed", "dropped", "failed")

    def __init__(self) -> None:
        self.compared = 0
        self.disagreed = 0
        self.dropped = 0
        self.failed = 0


class ArmStatistics:
    """Counts since the last report. Belongs to one event loop."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        """Everything is zero."""
        self._arms: dict[VersionKey, _Arm] = {}
        self._shadows: dict[VersionKey, ShadowTally] = {}
        self._exposures: list[Exposure] = []
        self._exposed_rows = 0
        self._exposures_dropped = 0
        self._disagreements: list[Disagreement] = []

    def count(self, key: VersionKey, seconds: float) -> None:
        """Counts a request of an arm that the service did not fail."""
        arm = self._arms.get(key)
        if arm is None:
            arm = self._arms[key] = _Arm()
        arm.requests += 1
        arm.latency[bound_above(seconds)] += 1

    def count_fault(self, key: VersionKey) -> None:
        """Counts a request of an arm that the service failed, also if another version helped."""
        arm = self._arms.get(key)
        if arm is None:
            arm = self._arms[key] = _Arm()
        arm.requests += 1
        arm.faults += 1

    def expose(
        self,
        exposing: Exposing,
        key: VersionKey,
        request_id: str,
        rows: int,
        outputs: Mapping[str, Array],
    ) -> None:
        """Notes a request whose outcome may be reported, if it belongs to the sample.

        Args:
            exposing: what the model's release says of outcomes.
            key: the arm, which answered itself.
            request_id: under which the outcome will come.
            rows: of the request.
            outputs: all of them, with so many rows.
        """
        if exposing.share < 1.0 and uniform(exposing.seed, key_of(request_id)) >= exposing.share:
            return
        if self._exposed_rows + rows > MAX_EXPOSED_ROWS:
            self._exposures_dropped += 1
            return
        self._exposed_rows += rows
        output = outputs.get(exposing.output)
        prediction = () if output is None else predictions(output, rows)
        self._exposures.append(Exposure(request_id, key, time(), prediction))

    def shadow(self, key: VersionKey) -> ShadowTally:
        """Where to count what became of requests that were mirrored to a version."""
        tally = self._shadows.get(key)
        if tally is None:
            tally = self._shadows[key] = ShadowTally()
        return tally

    def disagree(
        self, request_id: str, primary: VersionKey, shadow: VersionKey, found: Mapping[str, str]
    ) -> None:
        """Keeps a sample of the answers that differed."""
        if len(self._disagreements) < MAX_DISAGREEMENTS:
            self._disagreements.append(Disagreement(request_id, primary, shadow, time(), found))

    def take(self, ingress: str, sequence: int) -> IngressReport | None:
        """Ends a report and begins the next one; None if there is nothing to report."""
        if not (self._arms or self._shadows):
            return None
        report = IngressReport(
            ingress,
            sequence,
            {
                key: ArmCounts(arm.requests, arm.faults, tuple(arm.latency))
                for key, arm in self._arms.items()
            },
            {
                key: ShadowCounts(each.compared, each.disagreed, each.dropped, each.failed)
                for key, each in self._shadows.items()
            },
            tuple(self._exposures),
            tuple(self._disagreements),
            self._exposures_dropped,
        )
        self._begin()
        return report
