from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.pacing import DEADLINE_SHARE, HOLD_SHARE, MIN_HOLD_S, START_ROWS, Pace, Plan

FLAT = (8e-3, 0.05e-3)
LINEAR = (5e-3, 12e-3)
CHEAP = (0.15e-3, 2e-6)


def taught(
    model: tuple[float, float],
    *,
    replicas: int = 1,
    overhead: float = 0.15e-3,
    rows: tuple[int, ...] = (1, 4, 16, 24),
    max_rows: int = 256,
    max_slots: int = 16,
) -> Pace:
    pace = Pace(max_rows, max_slots, replicas)
    for each in rows * 20:
        learn(pace, model, each, overhead=overhead)
        decide(pace, waiting=1, in_flight=0, budget=0.0)  # It leaves at once: nothing is expected.
    return pace


def learn(
    pace: Pace,
    model: tuple[float, float],
    rows: int,
    *,
    overhead: float = 0.15e-3,
    waiting: int = 0,
    factor: float = 1.0,
) -> None:
    compute = (model[0] + model[1] * rows) * factor
    pace.finished(
        requests=rows,
        rows=rows,
        compute_s=compute,
        round_trip_s=compute + overhead,
        ahead=0,
        waiting=waiting,
    )


def decide(
    pace: Pace, *, waiting: int, now: float = 0.0, budget: float = 30.0, in_flight: int = 0
) -> Plan:
    return pace.decide(
        now, waiting=waiting, rows=waiting, budget_s=budget, in_flight=in_flight, rows_out=0
    )


def test_knows_nothing_at_first_and_is_careful() -> None:
    pace = Pace(256, 8, 2)
    assert decide(pace, waiting=1) == Plan(2, START_ROWS, 0.0)
    assert decide(pace, waiting=START_ROWS) == Plan(4, START_ROWS, 0.0)


@pytest.mark.parametrize("model", [FLAT, LINEAR, CHEAP])
def test_finds_the_line_in_noise(model: tuple[float, float]) -> None:
    rng = random.Random(1)
    pace = Pace(256, 8)
    for _ in range(200):
        learn(pace, model, rng.randint(1, 32), factor=rng.uniform(0.95, 1.05))
    for rows in (1, 8, 32):
        expected = model[0] + model[1] * rows
        assert pace.fixed_s + pace.slope_s * rows == pytest.approx(expected, rel=0.1)


def test_one_pause_of_the_replica_hardly_moves_it() -> None:
    pace = taught(FLAT)
    learn(pace, FLAT, 8, factor=1000.0)
    assert pace.fixed_s < 1.3 * FLAT[0]


def test_follows_a_model_that_became_slower() -> None:
    pace = taught(CHEAP)
    for rows in (1, 4, 16, 24) * 30:
        learn(pace, FLAT, rows)
    assert pace.fixed_s == pytest.approx(FLAT[0], rel=0.1)


def test_batches_of_one_size_do_not_erase_the_slope() -> None:
    pace = taught(FLAT)
    for _ in range(2000):
        learn(pace, FLAT, 16)
    assert pace.slope_s == pytest.approx(FLAT[1], rel=0.05)


@pytest.mark.parametrize(
    ("model", "overhead", "replicas", "slots"),
    [
        (FLAT, 0.15e-3, 1, 1),
        (FLAT, 2e-3, 2, 2),
        (LINEAR, 0.15e-3, 1, 1),
        (LINEAR, 20e-3, 1, 2),
        (CHEAP, 0.15e-3, 1, 2),
        (CHEAP, 2e-3, 1, 4),
        ((2.0, 1e-3), 2e-3, 3, 3),
    ],
)
def test_slots_are_the_round_trip_over_the_computation(
    model: tuple[float, float], overhead: float, replicas: int, slots: int
) -> None:
    pace = taught(model, overhead=overhead, replicas=replicas)
    assert pace.slots == slots
    assert pace.slots_when_full == slots + replicas


def test_rows_stop_at_the_knee_and_at_the_cap() -> None:
    assert 10 <= taught(LINEAR, max_rows=256).rows <= 20
    flat = taught(FLAT, rows=(1, 32, 64, 128, 256))
    assert flat.rows == 256
    assert taught(FLAT, max_rows=20).rows == 20


def test_rows_do_not_run_ahead_of_what_was_seen() -> None:
    assert taught(FLAT, rows=(1, 8)).rows == START_ROWS
    assert taught(FLAT, rows=(1, 24)).rows == 48


def test_a_deadline_makes_a_batch_short() -> None:
    pace = taught(LINEAR)
    rows = decide(pace, waiting=12, budget=0.1).rows
    assert 1 <= rows < decide(pace, waiting=12).rows
    assert pace.fixed_s + pace.slope_s * rows <= DEADLINE_SHARE * 0.1


def test_a_deadline_does_not_cut_rows_that_cost_nothing() -> None:
    assert decide(taught(FLAT), waiting=16, budget=1e-3).rows >= 16


def test_replicas_get_equal_shares_of_costly_rows() -> None:
    assert decide(taught(LINEAR, replicas=2), waiting=6).rows == 3
    assert decide(taught(FLAT, replicas=2), waiting=16).rows >= 16


def test_trouble_halves_the_rows_which_then_grow_slowly() -> None:
    model = (1e-3, 0.2e-3)
    pace = taught(model, rows=(1, 32, 64, 96))
    assert pace.rows == 192
    pace.troubled(192)
    assert pace.rows == 96
    learn(pace, model, 96)
    assert pace.rows == 98


def test_trouble_leaves_rows_that_are_not_at_fault() -> None:
    pace = taught(FLAT)
    before = pace.rows
    pace.troubled(before)
    assert pace.rows == before


def test_a_request_larger_than_the_cap_teaches_nothing() -> None:
    pace = taught(FLAT)
    before = pace.fixed_s
    learn(pace, LINEAR, 1000)
    assert pace.fixed_s == before


def test_follow_keeps_what_was_learnt() -> None:
    pace = taught(FLAT)
    pace.follow(8, 1, 1)
    assert (pace.rows, pace.slots, pace.slots_when_full) == (8, 1, 1)
    assert pace.fixed_s == pytest.approx(FLAT[0], rel=0.01)


def test_waits_for_those_who_were_just_answered_until_they_are_back() -> None:
    pace = taught(FLAT)
    learn(pace, FLAT, 8, waiting=4)
    assert decide(pace, waiting=4, now=1.0).wait_s == pytest.approx(MIN_HOLD_S)
    assert decide(pace, waiting=9, now=1.0006).wait_s == pytest.approx(MIN_HOLD_S)
    assert decide(pace, waiting=12, now=1.0007).wait_s == 0.0


def test_a_hold_ends_where_nobody_comes_and_after_its_share() -> None:
    pace = taught(FLAT)
    learn(pace, FLAT, 8)
    assert decide(pace, waiting=1, now=1.0).wait_s > 0.0
    assert decide(pace, waiting=1, now=1.001).wait_s == 0.0
    learn(pace, FLAT, 8)
    now, waiting = 2.0, 1
    while decide(pace, waiting=waiting, now=now).wait_s:
        now, waiting = now + 0.0005, waiting + 1
    assert 0.001 < now - 2.0 <= HOLD_SHARE * pace.fixed_s + 0.0005


def test_holds_become_rare_where_nobody_comes_back() -> None:
    pace = taught(FLAT)
    held = 0
    for turn in range(1000):
        learn(pace, FLAT, 8, waiting=8)
        if decide(pace, waiting=8, now=turn).wait_s:
            held += 1
            decide(pace, waiting=8, now=turn + MIN_HOLD_S)
    assert 1 <= held <= 60


def test_does_not_hold_computations_that_rows_make_longer() -> None:
    for model in (LINEAR, CHEAP):
        pace = taught(model)
        learn(pace, model, 8, waiting=4)
        assert decide(pace, waiting=4, now=1.0).wait_s == 0.0


def test_does_not_hold_one_caller() -> None:
    pace = taught(FLAT)
    for turn in range(100):
        learn(pace, FLAT, 1)
        assert decide(pace, waiting=1, now=float(turn)).wait_s == 0.0


def test_does_not_hold_near_a_deadline() -> None:
    pace = taught(FLAT)
    learn(pace, FLAT, 8, waiting=4)
    assert decide(pace, waiting=4, budget=0.013).wait_s == 0.0


wild = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(0.0, 10.0),
    st.sampled_from([0.0, -1.0, 1e-12, 1e-6, 5e-324, 1e300]),
)
counts = st.one_of(st.integers(0, 300), st.sampled_from([-1, 2**31, 10**18]))


@settings(max_examples=200, deadline=None)
@given(
    max_rows=st.integers(1, 65536),
    max_slots=st.integers(1, 128),
    replicas=st.integers(1, 16),
    steps=st.lists(
        st.tuples(st.sampled_from("fdt"), counts, counts, counts, wild, wild, wild), max_size=30
    ),
)
def test_any_observations_give_a_plan_within_its_bounds(
    max_rows: int,
    max_slots: int,
    replicas: int,
    steps: list[tuple[str, int, int, int, float, float, float]],
) -> None:
    pace = Pace(max_rows, max_slots, replicas)
    for step, one, two, three, x, y, z in steps:
        if step == "f":
            pace.finished(
                requests=one, rows=two, compute_s=x, round_trip_s=y, ahead=three, waiting=one
            )
        elif step == "t":
            pace.troubled(two)
        plan = pace.decide(x, waiting=one, rows=two, budget_s=z, in_flight=three, rows_out=one)
        assert 1 <= plan.slots <= max_slots
        assert 1 <= plan.rows <= max_rows
        assert 0.0 <= plan.wait_s <= min(HOLD_SHARE * pace.fixed_s, MIN_HOLD_S)
        if plan.wait_s:
            assert DEADLINE_SHARE * z > pace.fixed_s + plan.wait_s
        for value in (pace.fixed_s, pace.slope_s, pace.overhead_s):
            assert math.isfinite(value)


class Outcome(NamedTuple):
    throughput: float
    slowest_s: float
    missed: int
    holds: int


class World:
    """Closed-loop callers, one queue, replicas that compute in order of arrival; no real time."""

    def __init__(
        self,
        model: tuple[float, float],
        *,
        callers: int,
        replicas: int = 1,
        overhead: float = 0.15e-3,
        adaptive: bool,
        timeout: float = 30.0,
    ) -> None:
        self.model, self.overhead, self.timeout = model, overhead, timeout
        self.pace = Pace(256, 4 * replicas, replicas) if adaptive else None
        self.rng = random.Random(7)
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = count()
        self.queue: deque[float] = deque()
        self.free_at = [0.0] * replicas
        self.busy_until = 0.0
        self.in_flight = self.rows_out = self.holds = self.missed = 0
        self.latencies: list[float] = []
        for _ in range(callers):
            self.after(self.rng.random() * 1e-3, self.call)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.now + seconds, next(self.order), action))

    def call(self) -> None:
        self.queue.append(self.now)
        self.depart()

    def depart(self) -> None:
        while waiting := len(self.queue):
            plan = Plan(2 * len(self.free_at), 32, 0.0)
            if self.pace is not None:
                budget = self.queue[0] + self.timeout - self.now
                plan = self.pace.decide(
                    self.now,
                    waiting=waiting,
                    rows=waiting,
                    budget_s=budget,
                    in_flight=self.in_flight,
                    rows_out=self.rows_out,
                )
            if self.in_flight >= plan.slots:
                return
            if plan.wait_s:
                self.holds += 1
                self.after(MIN_HOLD_S, self.depart)
                return
            self.send([self.queue.popleft() for _ in range(min(waiting, plan.rows))])

    def send(self, members: list[float]) -> None:
        rows, departed, ahead = len(members), self.now, self.in_flight
        compute = (self.model[0] + self.model[1] * rows) * self.rng.uniform(0.95, 1.05)
        replica = min(range(len(self.free_at)), key=self.free_at.__getitem__)
        done = max(self.free_at[replica], self.now + self.overhead / 2) + compute
        self.free_at[replica] = done
        self.in_flight += 1
        self.rows_out += rows

        def home() -> None:
            self.in_flight -= 1
            self.rows_out -= rows
            if self.pace is not None:
                self.pace.finished(
                    requests=rows,
                    rows=rows,
                    compute_s=compute,
                    round_trip_s=self.now - departed,
                    ahead=ahead,
                    waiting=len(self.queue),
                )
            late = sum(self.now - started > self.timeout for started in members)
            self.missed += late
            if late and self.pace is not None:
                self.pace.troubled(rows)
            # One ingress sends, answers and reads one after the other.
            self.busy_until = max(self.busy_until, self.now) + 60e-6
            for started in members:
                self.latencies.append(self.now - started)
                self.busy_until += 60e-6
                self.after(self.busy_until - self.now + self.rng.expovariate(20e3), self.call)
            self.depart()

        self.after(done + self.overhead / 2 - self.now, home)

    def run(self, requests: int) -> Outcome:
        while len(self.latencies) < requests:
            self.now, _, action = heapq.heappop(self.events)
            action()
        settled = sorted(self.latencies[requests // 4 :])
        return Outcome(
            requests / self.now, settled[int(len(settled) * 0.99)], self.missed, self.holds
        )


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("callers", [1, 16, 64])
@pytest.mark.parametrize(
    ("model", "gain"), [(CHEAP, 0.95), (LINEAR, 0.96), (FLAT, 1.3), ((2.0, 1e-3), 1.5)]
)
def test_in_a_closed_loop_no_worse_than_fixed_settings(
    model: tuple[float, float], gain: float, callers: int, replicas: int
) -> None:
    fixed, adaptive = (
        World(model, callers=callers, replicas=replicas, adaptive=each).run(max(400, 20 * callers))
        for each in (False, True)
    )
    if callers == 1:
        assert adaptive == fixed
        return
    assert adaptive.throughput >= gain * fixed.throughput
    assert adaptive.slowest_s <= 1.5 * fixed.slowest_s
    assert adaptive.missed <= fixed.missed


def test_misses_no_more_deadlines_than_fixed_settings() -> None:
    fixed, adaptive = (
        World(LINEAR, callers=16, adaptive=each, timeout=0.25).run(1000) for each in (False, True)
    )
    assert adaptive.missed <= fixed.missed
