"""How members hear of their end: once, or never if nobody listens any more."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic

import numpy as np
import pytest

from serve_app.batching import VersionQueue
from serve_app.domain.batching_policy import BatchingPolicy
from serve_app.domain.inference import BatchResult, InferenceBatch, VersionKey
from serve_app.domain.tensor import Array
from serve_app.errors import DeadlineExceeded, NotReady, Overloaded, ServeAppError
from serve_app.telemetry.trace import RequestTrace
from serve_app.testing import FakeGateway
from serve_app.waiting import Member

KEY = VersionKey("echo", "1")
ROW = np.zeros((1, 4), np.float32)
Heard = list[tuple[Mapping[str, Array] | None, ServeAppError | None]]


class Caller:
    """Submits, and writes down what it hears."""

    def __init__(self, queue: VersionQueue) -> None:
        self.queue = queue
        self.heard: Heard = []
        self.trace = RequestTrace("test", "id")

    def settle(self, outputs: Mapping[str, Array] | None, error: ServeAppError | None) -> None:
        self.heard.append((outputs, error))

    def submit(self, timeout_s: float = 5.0) -> Member:
        return self.queue.submit(
            {"x": ROW},
            rows=1,
            size=16,
            deadline=monotonic() + timeout_s,
            signature=(4,),
            trace=self.trace,
            settle=self.settle,
        )


class Exploding(Caller):
    def settle(self, outputs: Mapping[str, Array] | None, error: ServeAppError | None) -> None:
        super().settle(outputs, error)
        raise RuntimeError("not my day")


def queue(gateway: FakeGateway, **policy: int) -> VersionQueue:
    return VersionQueue(KEY, gateway, BatchingPolicy.model_validate(policy), slots=1)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_nothing_is_heard_before_submit_has_returned() -> None:
    caller = Caller(queue(FakeGateway()))
    member = caller.submit()
    assert not caller.heard
    assert not member.done
    await turns()
    [(outputs, error)] = caller.heard
    assert outputs is not None
    assert error is None
    assert member.done


async def test_a_callback_that_raises_hurts_no_other_member(
    caplog: pytest.LogCaptureFixture,
) -> None:
    batches = queue(FakeGateway())
    callers = [Caller(batches), Exploding(batches), Caller(batches)]
    for caller in callers:
        caller.submit()
    await turns()
    assert [len(caller.heard) for caller in callers] == [1, 1, 1]
    assert "not my day" in caplog.text
    assert batches.in_flight == 0
    callers[0].submit()
    await turns()
    assert len(callers[0].heard) == 2


async def test_a_callback_that_raises_hurts_nobody_when_all_fail() -> None:
    batches = queue(FakeGateway(delay_s=5.0))
    flies = Caller(batches)
    member = flies.submit()
    await turns()
    waiting = [Exploding(batches), Caller(batches)]
    for caller in waiting:
        caller.submit()
    batches.close(NotReady("removed"))
    for caller in waiting:
        [(_, error)] = caller.heard
        assert isinstance(error, NotReady)
    assert batches.queued_rows == 0
    batches.withdraw(member)


async def test_expiry_is_heard_once_also_if_the_callback_raises() -> None:
    batches = queue(FakeGateway(delay_s=5.0))
    callers = [Exploding(batches), Caller(batches)]
    for caller in callers:
        caller.submit(0.01)
    await asyncio.sleep(0.1)
    for caller in callers:
        [(_, error)] = caller.heard
        assert isinstance(error, DeadlineExceeded)
    assert batches.in_flight == 0


@pytest.mark.parametrize("flying", [False, True])
async def test_whoever_withdraws_hears_nothing_more(flying: bool) -> None:
    gateway = FakeGateway(delay_s=0.01)
    batches = queue(gateway)
    stays, leaves = Caller(batches), Caller(batches)
    stays.submit()
    if not flying:
        await turns()
    member = leaves.submit()
    await turns()
    batches.withdraw(member)
    batches.withdraw(member)
    await asyncio.sleep(0.05)
    assert (len(stays.heard), leaves.heard) == (1, [])
    assert (batches.queued_rows, batches._room.bytes, batches.in_flight) == (0, 0, 0)


async def test_withdrawing_what_is_settled_does_nothing() -> None:
    batches = queue(FakeGateway())
    caller = Caller(batches)
    member = caller.submit()
    await turns()
    batches.withdraw(member)
    assert len(caller.heard) == 1


async def test_a_callback_may_submit_again() -> None:
    class Again(Caller):
        def settle(self, outputs: Mapping[str, Array] | None, error: ServeAppError | None) -> None:
            super().settle(outputs, error)
            if len(self.heard) < 5:
                self.submit()

    gateway = FakeGateway()
    caller = Again(queue(gateway))
    caller.submit()
    for _ in range(10):
        await turns()
    assert len(caller.heard) == 5


async def test_a_callback_may_withdraw_its_neighbour() -> None:
    batches = queue(FakeGateway())
    second = Caller(batches)

    class First(Caller):
        def settle(self, outputs: Mapping[str, Array] | None, error: ServeAppError | None) -> None:
            super().settle(outputs, error)
            self.queue.withdraw(neighbour)

    first = First(batches)
    first.submit()
    neighbour = second.submit()
    await turns()
    assert (len(first.heard), second.heard) == (1, [])
    assert batches.in_flight == 0


async def test_a_full_queue_refuses_before_anything_is_heard() -> None:
    batches = queue(FakeGateway(delay_s=5.0), max_queue_rows=1)
    flies, waits, refused = (Caller(batches) for _ in range(3))
    members = [flies.submit()]
    await turns()
    members.append(waits.submit())
    with pytest.raises(Overloaded):
        refused.submit()
    assert not refused.heard
    for member in members:
        batches.withdraw(member)


async def test_a_batch_says_what_waits_behind_it_and_its_trace_context() -> None:
    gateway = FakeGateway(delay_s=0.005)
    batches = queue(gateway, max_rows=2)
    callers = [Caller(batches) for _ in range(5)]
    callers[3].trace.traceparent = "00-a-b-01"
    for caller in callers:
        caller.submit()
    await asyncio.sleep(0.2)
    assert all(caller.heard for caller in callers)
    sent = [batch for _, batch in gateway.batches]
    assert [batch.backlog for batch in sent] == [3, 1, 0]
    assert [batch.traceparents for batch in sent] == [(), ("", "00-a-b-01"), ()]


async def test_the_way_of_a_batch_is_noted_and_observed() -> None:
    class Direct(FakeGateway):
        async def call(
            self, key: VersionKey, batch: InferenceBatch, timeout_s: float
        ) -> BatchResult:
            return BatchResult(batch.inputs, {}, 0.25, "direct", 12, 3)

    observed: list[tuple[VersionKey, int, BatchResult]] = []
    batches = VersionQueue(
        KEY,
        Direct(),
        BatchingPolicy(),
        slots=1,
        observe=lambda key, rows, result: observed.append((key, rows, result)),
    )
    callers = [Caller(batches), Caller(batches)]
    for caller in callers:
        caller.submit()
    await turns()
    assert [caller.trace.transport for caller in callers] == ["direct", "direct"]
    [(key, rows, result)] = observed
    assert (key, rows, result.compute_s, result.tokens, result.padding) == (KEY, 2, 0.25, 12, 3)
