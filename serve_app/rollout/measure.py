"""Which events of a side are counted."""

from __future__ import annotations

from typing import Literal, NamedTuple

from serve_app.evidence import Counts
from serve_app.evidence.histogram import bound_above
from serve_app.rollout.side import Side


class Measure(NamedTuple):
    """Events, and among what. Ready for JSON as it is."""

    events: Literal["faults", "disagreements", "wrong", "slow"]
    seconds: float = 0.0
    """slow: longer than this, rounded up to the next bound of the histogram."""

    def counts(self, side: Side) -> Counts:
        """Totals of a side; neither ever shrinks while the side grows."""
        match self.events:
            case "faults":
                return Counts(side.faults, side.requests)
            case "disagreements":
                return Counts(side.disagreed, side.compared)
            case "wrong":
                return Counts(side.wrong, side.outcomes.count)
            case "slow":
                slow = side.latency.above(bound_above(self.seconds))
                return Counts(slow, round(side.latency.total))


FAULTS = Measure("faults")
DISAGREEMENTS = Measure("disagreements")
WRONG = Measure("wrong")


def percent(share: float) -> str:
    """Such as "2.5 %"."""
    return f"{100 * share:.3g} %"
