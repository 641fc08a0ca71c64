"""Guards on latency: slow requests are events, and events are tested in `sequential.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from serve_app.evidence.histogram import BOUNDS, LatencyHistogram, steps_above
from serve_app.evidence.sequential import Counts, RatioTest

_KEPT = 0.99
_FULL = 100
"""With so many requests beyond the quantile, the stable arm's past counts for `_KEPT` of itself
after each increment: the threshold follows the time of day, and who has little traffic forgets
nothing."""
_ENOUGH = 2
"""Requests beyond the quantile that a threshold needs, at least."""


class LatencyRatioTest:
    """Is the candidate slower than allowed? H0: around the quantile, at most `ratio` times as slow.

    Before each increment a threshold T is set from the stable arm's past: its quantile. Events are
    requests of the stable arm above T and of the candidate above ratio x T (rounded up to a bound).
    A candidate that is at most `ratio` times as slow has no more of them, P_c(X > ratio T) <=
    P_s(X > T), and since T looks at the past only, the test on their rates stays valid. What is
    compared is thus the tail beyond T; T is near the quantile but never exactly there.
    """

    def __init__(self, quantile: float, ratio: float, alpha: float = 0.05) -> None:
        """Starts without data.

        Args:
            quantile: such as 0.99.
            ratio: how many times as slow the candidate may be, at least 1.
            alpha: highest probability of a false alarm, ever.

        Raises:
            ValueError: one of them is out of range.
        """
        if not 0 < quantile < 1 or not 1 <= ratio < float("inf"):
            raise ValueError(f"no test of quantile {quantile} at ratio {ratio}")
        self.quantile, self.ratio = quantile, ratio
        self.slow = RatioTest(1.0, alpha)
        """The test on slow requests, with their counts."""
        self._past = LatencyHistogram()
        self._steps = steps_above(ratio)

    @property
    def p_value(self) -> float:
        """Valid at all times."""
        return self.slow.p_value

    @property
    def rejected(self) -> bool:
        """Whether the candidate is shown to be slower than allowed; stays so."""
        return self.slow.rejected

    @property
    def threshold_s(self) -> float:
        """T for the next increment, in seconds; `nan` or `inf` while there is none."""
        return self._past.quantile(self.quantile)

    def learn(self, stable: LatencyHistogram) -> None:
        """Takes latencies of the stable arm from before the candidate had traffic."""
        if self._past.total * (1 - self.quantile) > _FULL:
            self._past.fade(_KEPT)
        self._past.merge(stable)

    def update(self, candidate: LatencyHistogram, stable: LatencyHistogram) -> bool:
        """Takes the latencies since the last call; returns `rejected`.

        As long as the past is too short for a threshold, they only become part of it.
        """
        index = self._past.quantile_index(self.quantile)
        enough = self._past.total * (1 - self.quantile) > _ENOUGH
        if enough and index + self._steps < len(BOUNDS):
            self.slow.update(
                Counts(candidate.above(index + self._steps), round(candidate.total)),
                Counts(stable.above(index), round(stable.total)),
            )
        self.learn(stable)
        return self.rejected

    def state(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        own = {"quantile": self.quantile, "ratio": self.ratio}
        return {**own, "slow": self.slow.state(), "past": self._past.state()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The reverse of `state`.

        Raises:
            ValueError: it is not a state of this test.
        """
        found = cls(state["quantile"], state["ratio"], state["slow"]["alpha"])
        found.slow = RatioTest.from_state(state["slow"])
        found._past = LatencyHistogram.from_state(state["past"])
        return found
