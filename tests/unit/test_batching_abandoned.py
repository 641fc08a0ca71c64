"""Members that nobody waits for any more take no slot and no neighbour with them."""

from __future__ import annotations

import asyncio
from time import monotonic

import numpy as np
import pytest

from serve_app.batching import Member, VersionQueue
from serve_app.domain.inference import VersionKey
from serve_app.domain.routing import BatchingPolicy
from serve_app.errors import DeadlineExceeded
from serve_app.telemetry.trace import RequestTrace
from serve_app.testing import FakeGateway

KEY = VersionKey("echo", "1")
ROW = np.zeros((1, 4), np.float32)


def queue(delay_s: float) -> VersionQueue:
    return VersionQueue(KEY, FakeGateway(delay_s=delay_s), BatchingPolicy(), slots=1)


def submit(queue: VersionQueue, timeout_s: float) -> asyncio.Task[object]:
    async def run() -> object:
        return await queue.submit(
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
    expire = VersionQueue._expire

    def expire_and_cancel(self: VersionQueue, member: Member) -> None:
        expire(self, member)
        leaver.cancel()

    monkeypatch.setattr(VersionQueue, "_expire", expire_and_cancel)
    batches = queue(delay_s=0.1)
    leaver = submit(batches, 0.03)
    stayer = submit(batches, 5.0)
    with pytest.raises(asyncio.CancelledError):
        await leaver
    assert batches.in_flight == 1
    async with asyncio.timeout(1.0):
        assert await stayer
