"""Batches that adapt: what `serve_app.pacing` decides reaches the queue, and comes back to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic

import numpy as np
import pytest

from serve_app.batching import VersionQueue
from serve_app.domain.batching_policy import BatchingPolicy
from serve_app.domain.inference import BatchResult, Failure, InferenceBatch, VersionKey
from serve_app.domain.tensor import Array
from serve_app.errors import DeadlineExceeded, ModelFailed, ReplicaLost
from serve_app.telemetry.trace import RequestTrace
from serve_app.waiting import ALONE
from tests.unit.submission import outputs_of

KEY = VersionKey("m", "1")


class Model:
    """Takes `fixed_s` and `row_s` per row, one batch after the other; remembers the rows."""

    def __init__(self, fixed_s: float, row_s: float = 0.0) -> None:
        self.fixed_s, self.row_s = fixed_s, row_s
        self.rows: list[int] = []
        self.error: Exception | None = None
        self.late = False
        self._busy = asyncio.Lock()

    async def call(self, key: VersionKey, batch: InferenceBatch, timeout_s: float) -> BatchResult:
        rows = sum(batch.rows)
        self.rows.append(rows)
        async with self._busy:
            seconds = self.fixed_s + self.row_s * rows
            await asyncio.sleep(seconds)
        if self.error is not None:
            raise self.error
        failures = {0: Failure(DeadlineExceeded.code, "late")} if self.late else {}
        kept = {name: array[len(failures) :] for name, array in batch.inputs.items()}
        return BatchResult(kept, failures, seconds)

    async def wake(self, key: VersionKey) -> None:
        raise AssertionError("nothing sleeps here")


def queue(model: Model, **options: float) -> VersionQueue:
    policy = BatchingPolicy.model_validate(options)
    return VersionQueue(KEY, model, policy, slots=policy.slots_per_replica)


async def ask(
    target: VersionQueue, value: float, timeout_s: float = 5.0, signature: object = ()
) -> Mapping[str, Array]:
    outputs: Mapping[str, Array] = await outputs_of(
        target,
        {"x": np.full((1, 2), value, np.float32)},
        rows=1,
        size=8,
        deadline=monotonic() + timeout_s,
        signature=signature,
        trace=RequestTrace("test", f"id-{value:g}"),
    )
    return outputs


async def callers(target: VersionQueue, count: int, rounds: int) -> None:
    async def one(number: int) -> None:
        for turn in range(rounds):
            value = number * 1000 + turn
            assert (await ask(target, value))["x"].tolist() == [[value, value]]

    await asyncio.gather(*[one(number) for number in range(count)])


def at_rest(target: VersionQueue) -> bool:
    return (target.in_flight, target.queued_rows, target._rows_out) == (0, 0, 0)


async def test_batches_grow_beyond_the_start_when_that_pays() -> None:
    model = Model(fixed_s=0.004, row_s=0.00001)
    target = queue(model)
    await callers(target, 120, 12)
    assert max(model.rows) > 50
    assert at_rest(target)


async def test_the_policy_caps_rows() -> None:
    model = Model(fixed_s=0.004, row_s=0.00001)
    target = queue(model, max_rows=7)
    await callers(target, 60, 6)
    assert max(model.rows) == 7


async def test_a_long_computation_is_not_given_batches_to_queue() -> None:
    model = Model(fixed_s=0.02, row_s=0.0)
    target = queue(model, slots_per_replica=16)
    await callers(target, 4, 5)
    waiting = [asyncio.create_task(ask(target, n)) for n in range(4)]
    await asyncio.sleep(0.005)
    assert target.in_flight <= 2
    await asyncio.gather(*waiting)


async def test_one_caller_is_never_held() -> None:
    model = Model(fixed_s=0.01)
    target = queue(model)
    await callers(target, 1, 15)
    asking = asyncio.create_task(ask(target, 1))
    for _ in range(3):
        await asyncio.sleep(0)
    assert target.in_flight == 1
    await asking


async def test_late_members_make_batches_smaller() -> None:
    model = Model(fixed_s=0.0005, row_s=0.0001)
    target = queue(model)
    await callers(target, 64, 5)
    before = target._pace.rows
    model.late = True
    for _ in range(3):
        await asyncio.gather(*[ask(target, n) for n in range(40)], return_exceptions=True)
    assert target._pace.rows < before
    assert at_rest(target)


@pytest.mark.parametrize("error", [ModelFailed("no"), ReplicaLost("gone"), ValueError("what")])
async def test_a_failed_batch_is_forgotten(error: Exception) -> None:
    model = Model(fixed_s=0.001)
    target = queue(model)
    model.error = error
    outcomes = await asyncio.gather(*[ask(target, n) for n in range(5)], return_exceptions=True)
    assert all(isinstance(outcome, Exception) for outcome in outcomes)
    assert at_rest(target)
    model.error = None
    assert (await ask(target, 1))["x"].tolist() == [[1, 1]]


async def test_a_batch_that_nobody_wants_is_forgotten() -> None:
    target = queue(Model(fixed_s=5.0))
    asking = asyncio.create_task(ask(target, 1))
    await asyncio.sleep(0.01)
    assert target._rows_out == 1
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.sleep(0)
    assert at_rest(target)


async def test_batches_that_outlive_their_deadline_become_smaller() -> None:
    model = Model(fixed_s=0.0, row_s=0.01)
    target = queue(model)

    async def caller(number: int) -> int:
        answered = 0
        for _ in range(12):
            try:
                await ask(target, number, timeout_s=0.15)
                answered += 1
            except DeadlineExceeded:
                pass
        return answered

    assert sum(await asyncio.gather(*[caller(number) for number in range(40)])) > 10
    assert model.rows[0] == 32
    assert min(model.rows) < 16


async def test_requests_that_share_no_batch_use_every_slot_at_once() -> None:
    model = Model(fixed_s=0.01)
    target = queue(model, slots_per_replica=2)
    for _ in range(10):
        await asyncio.gather(*[ask(target, n, signature=ALONE) for n in range(4)])
    waiting = [asyncio.create_task(ask(target, n, signature=ALONE)) for n in range(4)]
    for _ in range(4):
        await asyncio.sleep(0)
    assert target.in_flight == 2
    await asyncio.gather(*waiting)


async def test_who_is_gone_does_not_stand_at_the_head_of_a_queue() -> None:
    target = queue(Model(fixed_s=0.3), slots_per_replica=1)
    first = asyncio.create_task(ask(target, 1))
    await asyncio.sleep(0.01)
    gone = asyncio.create_task(ask(target, 2, timeout_s=1.0))
    stays = asyncio.create_task(ask(target, 3, timeout_s=5.0))
    await asyncio.sleep(0.01)
    gone.cancel()
    await asyncio.sleep(0)
    assert target._room.nearest_deadline(10) - monotonic() > 4.0
    assert target.queued_rows == 1
    assert (await stays)["x"].tolist() == [[3, 3]]
    await first
