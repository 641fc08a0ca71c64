"""Latencies in buckets fine enough to compare quantiles by ratio."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from math import ceil, inf, log2, nan
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from serve_app.evidence.wealth import Floats

PER_DOUBLING = 34
"""Buckets from one latency to its double, 2.06 % each. With 34, steps of 1.1, 1.2, 1.25, 1.5 and 2
end at most 0.7 % below a bound; no smaller number comes as near for all of them."""

BOUNDS = np.exp2(np.arange(-14 * PER_DOUBLING, 10 * PER_DOUBLING + 1) / PER_DOUBLING)
"""Upper bounds of the buckets in seconds, inclusive: 61 us to 1,024 s. Above is one bucket more."""

_LIST = BOUNDS.tolist()


def bound_above(seconds: float) -> int:
    """Index of the lowest bound that is not below this; `len(BOUNDS)` if there is none."""
    return bisect_left(_LIST, seconds)


def steps_above(ratio: float) -> int:
    """How many bounds further the latency is at least `ratio` times as high."""
    # Powers of two and their like are exact but for rounding.
    return ceil(PER_DOUBLING * log2(ratio) - 1e-9)


class LatencyHistogram:
    """How many requests took how long. Counts are floats, because old ones may fade."""

    def __init__(self) -> None:
        self.counts: Floats = np.zeros(len(BOUNDS) + 1)

    @property
    def total(self) -> float:
        """All requests."""
        return float(self.counts.sum())

    def add(self, seconds: float) -> None:
        """One request."""
        self.counts[bound_above(seconds)] += 1

    def add_all(self, seconds: ArrayLike) -> None:
        """Several requests."""
        indices = np.searchsorted(BOUNDS, np.asarray(seconds, dtype=np.float64))
        self.counts += np.bincount(indices, minlength=len(self.counts))

    def merge(self, other: LatencyHistogram) -> None:
        """What another process, or the last second, has counted."""
        self.counts += other.counts

    def fade(self, kept: float) -> None:
        """Lets all that is here count for so much only, 0 to 1."""
        self.counts *= kept

    def above(self, index: int) -> int:
        """Requests that took longer than `BOUNDS[index]`, in whole ones."""
        return round(float(self.counts[index + 1 :].sum()))

    def quantile_index(self, q: float) -> int:
        """Index of the bound that a share `q` of the requests did not exceed.

        `len(BOUNDS)` if it lies above them all, or if there are no requests.
        """
        cumulative = np.cumsum(self.counts)
        if not cumulative[-1]:
            return len(BOUNDS)
        return int(np.searchsorted(cumulative, q * cumulative[-1] * (1 - 1e-12)))

    def quantile(self, q: float) -> float:
        """That bound in seconds, at most 2.06 % too high; `inf` above them all, `nan` if empty."""
        if not self.counts.any():
            return nan
        index = self.quantile_index(q)
        return _LIST[index] if index < len(_LIST) else inf

    def state(self) -> dict[str, Any]:
        """The buckets that are not empty, ready for JSON."""
        filled = np.flatnonzero(self.counts)
        return {"buckets": filled.tolist(), "counts": self.counts[filled].tolist()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The reverse of `state`.

        Raises:
            ValueError: it has buckets that are not here.
        """
        buckets = np.asarray(state["buckets"], dtype=np.int64)
        found = cls()
        if buckets.size and not (buckets.min() >= 0 and buckets.max() < len(found.counts)):
            raise ValueError("a state with other buckets")
        found.counts[buckets] = state["counts"]
        return found
