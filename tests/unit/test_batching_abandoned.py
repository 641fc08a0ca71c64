"""Members that nobody waits for any more take no slot and no neighbour with them."""

from __future__ import annotations

import asyncio
from time import monotonic

import numpy as np
import pytest

from serve_app.batching import VersionQueue
from serve_app.deadlines import DeadlineWatch
from serve_app.domain.batching_policy import BatchingPolicy
from serve_app.domain.inference import BatchResult, InferenceBatch, VersionKey
from serve_app.errors import DeadlineExceeded, PayloadTooLarge
from serve_app.telemetry.trace import RequestTrace
from serve_app.testing import FakeGateway
from tests.unit.submission import outputs_of

KEY = VersionKey("echo", "1")
ROW = np.zeros((1, 4), np.float32)


def queue(delay_s: float) -> VersionQueue:
    return VersionQueue(KEY, FakeGateway(delay_s=delay_s), BatchingPolicy(), slots=1)


def submit(queue: VersionQueue, timeout_s: float) -> asyncio.Task[object]:
    async def run() -> object:
        return await outputs_of(
            queue,
            {"x": ROW},
            rows=1,
            size=16,
            deadline=monotonic() + timeout_s,
            signature=(4,),
            trace=RequestTrace("test", "id"),
        )

    return asyncio.create_task(run())


async def test_a_member_that_expires_as_its_batch_departs_frees_the_slot() -> None:
    batches = queue(delay_s=0.01)
    for _ in range(3):
        with pytest.raises(DeadlineExceeded):
            await submit(batches, 0.0)
    assert batches.in_flight == 0
    assert await submit(batches, 5.0)


async def test_expiry_and_cancellation_of_one_member_count_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sweep = DeadlineWatch._sweep

    def sweep_and_cancel(self: DeadlineWatch) -> None:
        sweep(self)
        leaver.cancel()

    monkeypatch.setattr(DeadlineWatch, "_sweep", sweep_and_cancel)
    batches = queue(delay_s=0.1)
    leaver = submit(batches, 0.03)
    stayer = submit(batches, 5.0)
    with pytest.raises(asyncio.CancelledError):
        await leaver
    assert batches.in_flight == 1
    async with asyncio.timeout(1.0):
        assert await stayer


async def test_whoever_leaves_gives_back_the_place() -> None:
    batches = VersionQueue(
        KEY, FakeGateway(delay_s=0.05), BatchingPolicy(max_queue_rows=10), slots=1
    )
    first = submit(batches, 5.0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    leavers = [submit(batches, 5.0) for _ in range(10)]
    await asyncio.sleep(0)
    assert batches.queued_rows == 10
    for leaver in leavers:
        leaver.cancel()
    await asyncio.gather(*leavers, return_exceptions=True)
    assert (batches.queued_rows, batches._room.bytes) == (0, 0)
    assert await submit(batches, 5.0)
    await first


async def test_crowds_that_leave_do_not_pile_up() -> None:
    batches = queue(delay_s=0.2)
    first = submit(batches, 5.0)
    await asyncio.sleep(0.01)
    for _ in range(5):
        crowd = [submit(batches, 5.0) for _ in range(1000)]
        await asyncio.sleep(0)
        for leaver in crowd:
            leaver.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
    left = sum(len(each) for each in batches._room._queues.values())
    assert left <= 1000
    assert await submit(batches, 5.0)
    await first


async def test_a_call_that_the_transport_cancels_is_retried() -> None:
    class Fickle(FakeGateway):
        async def call(
            self, key: VersionKey, batch: InferenceBatch, timeout_s: float
        ) -> BatchResult:
            if not self.batches:
                self.batches.append((key, batch))
                raise asyncio.CancelledError
            return await super().call(key, batch, timeout_s)

    batches = VersionQueue(KEY, Fickle(), BatchingPolicy(), slots=1)
    async with asyncio.timeout(1.0):
        assert await submit(batches, 5.0)


async def test_a_batch_that_fills_up_does_not_go_on_waiting() -> None:
    gateway = FakeGateway()
    policy = BatchingPolicy(max_rows=4, max_wait_ms=5_000)
    batches = VersionQueue(KEY, gateway, policy, slots=1)
    early = [submit(batches, 10.0) for _ in range(2)]
    await asyncio.sleep(0.02)
    late = [submit(batches, 10.0) for _ in range(2)]
    async with asyncio.timeout(1.0):
        await asyncio.gather(*early, *late)
    assert [batch.rows for _, batch in gateway.batches] == [(1, 1, 1, 1)]


async def test_a_request_that_could_never_fit_is_too_large_not_too_early() -> None:
    batches = VersionQueue(KEY, FakeGateway(), BatchingPolicy(max_queue_bytes=8), slots=1)
    with pytest.raises(PayloadTooLarge):
        await submit(batches, 5.0)


async def test_whoever_is_late_at_departure_stays_behind() -> None:
    gateway = FakeGateway()
    batches = VersionQueue(KEY, gateway, BatchingPolicy(), slots=1)
    late, early = submit(batches, -0.001), submit(batches, 5.0)
    assert await early
    with pytest.raises(DeadlineExceeded):
        await late
    assert [batch.rows for _, batch in gateway.batches] == [(1,)]
