"""How many batches, of how many rows, and when: learnt from every batch that comes home.

A `Pace` belongs to one queue. It fits `compute(rows) = fixed + slope * rows` to what the replicas
report, takes the rest of the round trip for transport, and derives the useful slots, the useful
rows, and whether to hold a departure for a moment. The policy's numbers are its caps. It has no
clock and no event loop: times are arguments. `finished` and `decide` are O(1) and take 2.5 µs per
batch together, which is why they compare where `min` and `max` would read better.

The numbers below were chosen in a simulation: docs/decisions/0010-batching-that-adapts.md.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

START_ROWS = 32
"""Most rows of a batch before anything is known; doubles with every batch near it."""

MIN_GAP_S = 0.00016
"""Batches need not leave faster than this, because each one costs CPU on both sides."""

OVERLAP = 4.0
"""Nor more often than this per transport: a free slot is then an eighth of a transport away."""

KNEE = 39.0
"""Rows grow until `slope * rows` is so many times the cost of a batch: 97.5 % of what can be."""

DEADLINE_SHARE = 0.8
"""A batch may take this much of the nearest deadline's budget, transport included."""

HOLD_SHARE = 0.25
"""The longest hold, as a share of the fixed part of a computation."""

MIN_HOLD_S = 0.001
"""One step of a hold: the event loop's timers are no finer."""

_KEEP = 0.97
"""Weight of the past per batch: about the last 33 count."""

_SPREAD = 0.01
"""The slope is learnt only while the variance of rows is more than this share of their mean²."""

_OUTLIER = 3.0
"""A measured time counts as at most so many times the expected one."""

_HOPE = 1.005
"""Growth of the hope that holding pays, per batch that is not held: a probe every 50 or so."""

_LEAST_HOPE = 0.02
_SHORTEST_S = 1e-6
_LONGEST_S = 1e5
_MANY = 1 << 30


class Plan(NamedTuple):
    """What the next departure may be."""

    slots: int
    """Batches that may be in flight; with fewer, and no wait, it leaves now."""
    rows: int
    """Rows that it may have."""
    wait_s: float
    """Ask again after this long, or when something arrives; 0: do not wait."""


class Pace:
    """Sets slots, rows and holds of one queue.

    Args:
        max_rows: never more rows in a batch.
        max_slots: never more batches in flight.
        replicas: how many replicas this queue is to keep busy.
        most_slots: never more full batches in flight, if that is another number.
    """

    __slots__ = (
        "_careful",
        "_expected",
        "_held_from",
        "_held_since",
        "_held_until",
        "_held_with",
        "_max_rows",
        "_max_slots",
        "_mean_s",
        "_most_slots",
        "_reach",
        "_replicas",
        "_return_share",
        "_sum_r",
        "_sum_rr",
        "_sum_rt",
        "_sum_t",
        "_sum_w",
        "fixed_s",
        "overhead_s",
        "rows",
        "slope_s",
        "slots",
        "slots_when_full",
    )

    def __init__(
        self, max_rows: int, max_slots: int, replicas: int = 1, most_slots: int = 0
    ) -> None:
        self.fixed_s = 0.0
        """Seconds that a computation takes however few its rows."""
        self.slope_s = 0.0
        """Seconds per row."""
        self.overhead_s = -1.0
        """Round trip less computation where no batch was ahead; negative: not known."""
        self._sum_w = self._sum_r = self._sum_rr = self._sum_t = self._sum_rt = 0.0
        self._mean_s = 0.0
        self._reach = float(START_ROWS)
        self._careful = False
        self._expected = 0
        self._return_share = 1.0
        self._held_since = -1.0
        self._held_until = 0.0
        self._held_from = self._held_with = 0
        self.follow(max_rows, max_slots, replicas, most_slots)

    def follow(self, max_rows: int, max_slots: int, replicas: int, most_slots: int = 0) -> None:
        """Takes over other caps; what has been learnt stays."""
        self._max_rows = max(1, max_rows)
        self._max_slots = max(1, max_slots)
        self._most_slots = max(self._max_slots, most_slots)
        self._replicas = max(1, replicas)
        self._refresh()

    def finished(
        self,
        *,
        requests: int,
        rows: int,
        compute_s: float,
        round_trip_s: float,
        ahead: int,
        waiting: int,
    ) -> None:
        """Learns from a batch that was computed.

        Args:
            requests: members that it had.
            rows: rows that it had.
            compute_s: what the replica says that it took.
            round_trip_s: from departure to return.
            ahead: batches of this queue that were in flight when it departed.
            waiting: requests that wait at its return.
        """
        expected = (self._expected if self._expected > waiting else waiting) + requests
        self._expected = expected if expected < _MANY else _MANY
        if not (_SHORTEST_S <= compute_s <= _LONGEST_S and 0 < rows <= self._max_rows):
            return  # More rows than the cap are computed in slices, which is another line.
        if ahead < self._replicas:
            self._learn_overhead(round_trip_s - compute_s, quiet=waiting <= 0)
        self._learn_line(rows, compute_s)
        if rows * 2 > self._reach:
            self._reach = self._reach + self._reach / 64.0 if self._careful else rows * 2.0
        self._refresh()

    def troubled(self, rows: int) -> None:
        """Learns from a batch with a member that was late: half its rows, then slow growth.

        Not fewer than give 90 % of the best throughput: lateness in overload must not add to it.
        """
        self._careful = True
        least = max(1.0, 9.0 * self.fixed_s / self.slope_s) if self.slope_s else 1.0
        half = min(rows, self._max_rows) / 2.0
        self._reach = min(self._reach, max(half, least))
        self._refresh()

    def decide(
        self,
        now: float,
        *,
        waiting: int,
        rows: int,
        budget_s: float,
        in_flight: int,
        rows_out: int,
        may_hold: bool = True,
    ) -> Plan:
        """What the next batch may be; with a free slot and no wait, the caller sends it.

        Args:
            now: seconds of any clock that does not go back.
            waiting: requests that wait.
            rows: rows that wait.
            budget_s: what the nearest deadline among them leaves.
            in_flight: batches that are out.
            rows_out: rows that are out.
            may_hold: whether a wait is possible at all.
        """
        limit = self.rows
        slots = self.slots_when_full if rows >= limit else self.slots
        if in_flight >= slots:
            return Plan(slots, limit, 0.0)
        slope = self.slope_s
        if slope:
            overhead = self.overhead_s if self.overhead_s > 0.0 else 0.0
            cost = self.fixed_s + overhead
            flat = cost / slope / 4.0  # Fewer rows than this make a batch hardly shorter.
            if self._replicas > 1:
                share = max((rows + rows_out) / self._replicas, flat)
                if share < limit:
                    limit = max(1, ceil(share))
            in_time = (DEADLINE_SHARE * budget_s - cost) / slope
            if 1.0 <= in_time < limit:  # With less, a single row would be late as well.
                limit = max(1, int(max(in_time, min(flat, limit))))
        wait_s = 0.0
        if may_hold and rows < limit and waiting < self._expected:
            wait_s = self._hold(now, waiting, rows, budget_s)
        if not wait_s:
            self._depart(waiting)
        return Plan(slots, limit, wait_s)

    def _hold(self, now: float, waiting: int, rows: int, budget_s: float) -> float:
        """How long to wait for the callers that were just answered.

        Callers in a closed loop fall into cohorts: while one computes, the others gather. Where
        the fixed part dominates, a batch for all takes hardly longer than a batch for a cohort. How
        many come back in time is measured, so a hold that does not gather ends by itself.
        """
        fixed = self.fixed_s
        longest = HOLD_SHARE * fixed
        if longest < MIN_HOLD_S or waiting <= 0:
            return 0.0
        variable = self.slope_s * self._expected * (rows / waiting)
        done = variable + fixed + longest + max(self.overhead_s, 0.0)
        if variable > fixed or not DEADLINE_SHARE * budget_s > done:
            return 0.0
        if self._held_since < 0.0:
            # Those who come back save a fixed part each, those who wait lose the step.
            gain = self._return_share * (self._expected - waiting) * fixed
            if gain <= waiting * MIN_HOLD_S:
                self._return_share = min(1.0, self._return_share * _HOPE)
                return 0.0
            self._held_since, self._held_until = now, now + MIN_HOLD_S
            self._held_from = self._held_with = waiting
        elif waiting > self._held_with:
            self._held_with = waiting
            self._held_until = min(now + MIN_HOLD_S, self._held_since + longest)
        left = self._held_until - now
        return min(left, MIN_HOLD_S) if left > MIN_HOLD_S / 4.0 else 0.0

    def _depart(self, waiting: int) -> None:
        if self._held_since >= 0.0:
            hoped = self._expected - self._held_from
            came = min(max((waiting - self._held_from) / hoped, 0.0), 1.0) if hoped > 0 else 1.0
            share = self._return_share + 0.25 * (came - self._return_share)
            self._return_share = max(share, _LEAST_HOPE)
            self._held_since = -1.0
        self._expected = 0

    def _learn_line(self, rows: int, compute_s: float) -> None:
        """Least squares with forgetting; noise grows with the time, so errors count relatively."""
        weight = 1.0
        if self._sum_w:
            usual = self.fixed_s + self.slope_s * rows
            if usual < _SHORTEST_S:
                usual = _SHORTEST_S
            if compute_s > _OUTLIER * usual:
                compute_s = _OUTLIER * usual
            # Relative to one row, so that a model that became slower is not outweighed by its past.
            weight = (self.fixed_s + self.slope_s) / usual
            weight *= weight
        weighted = weight * rows
        self._sum_w = w = self._sum_w * _KEEP + weight
        self._sum_r = r = self._sum_r * _KEEP + weighted
        self._sum_rr = rr = self._sum_rr * _KEEP + weighted * rows
        self._sum_t = t = self._sum_t * _KEEP + weight * compute_s
        self._sum_rt = rt = self._sum_rt * _KEEP + weighted * compute_s
        determinant = w * rr - r * r
        slope = (w * rt - r * t) / determinant if determinant > _SPREAD * r * r else self.slope_s
        # Both parts are times, so neither is negative.
        if slope <= 0.0:
            self.slope_s, self.fixed_s = 0.0, t / w
        elif slope * r >= t:
            self.slope_s, self.fixed_s = t / r, 0.0
        else:
            self.slope_s, self.fixed_s = slope, (t - slope * r) / w
        mean_s = self._mean_s
        self._mean_s = mean_s + (1.0 - _KEEP) * (compute_s - mean_s) if mean_s else compute_s

    def _learn_overhead(self, seconds: float, *, quiet: bool) -> None:
        """Grows only in quiet: a busy ingress sees a return late, and more slots would not help."""
        if not 0.0 <= seconds <= _LONGEST_S:
            return
        known = self.overhead_s
        if known < 0.0:
            self.overhead_s = seconds
        elif seconds < known:
            self.overhead_s = known + 0.25 * (seconds - known)
        elif quiet:
            seconds = min(seconds, max(_OUTLIER * known, _SHORTEST_S))
            self.overhead_s = known + 0.02 * (seconds - known)

    def _refresh(self) -> None:
        """Slots by Little's law, rows by the knee of the line."""
        mean_s, replicas = self._mean_s, self._replicas
        overhead = self.overhead_s if self.overhead_s > 0.0 else 0.0
        gap = mean_s / replicas
        if gap * OVERLAP < overhead:
            gap = overhead / OVERLAP
        if gap < MIN_GAP_S:
            gap = MIN_GAP_S
        # One slot too many splits batches, which costs a fixed part; one too few idles for the
        # transport. So it is rounded up early only where the fixed part is small.
        slots = int((mean_s + overhead) / gap + (0.5 if self.fixed_s > 0.5 * mean_s else 0.9))
        if slots < replicas:
            slots = replicas
        cap = self._max_slots
        self.slots = slots if slots < cap else cap
        # A full batch gains nothing by staying: it is at the replica when that becomes free.
        most = self._most_slots
        self.slots_when_full = slots + replicas if slots + replicas < most else most
        rows = self._reach if self._reach < self._max_rows else self._max_rows
        if self.slope_s and KNEE * (self.fixed_s + overhead) < rows * self.slope_s:
            rows = KNEE * (self.fixed_s + overhead) / self.slope_s
        self.rows = ceil(rows) if rows > 1.0 else 1
