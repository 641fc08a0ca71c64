"""A version that sleeps: requests wait, one call wakes it, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic

import numpy as np
import pytest

from serve_app.batching import VersionQueue
from serve_app.config.ingress import RequestLimits
from serve_app.dataplane import DataPlane
from serve_app.domain.batching_policy import BatchingPolicy
from serve_app.domain.inference import InferenceRequest, InferenceResult, VersionKey
from serve_app.errors import DeadlineExceeded, NotReady, Overloaded, ReplicaLost, ServeAppError
from serve_app.telemetry.trace import RequestTrace
from serve_app.testing import FakeGateway, model_route, route_table

KEY = VersionKey("echo", "1")
Outcome = InferenceResult | ServeAppError


class SleepyGateway(FakeGateway):
    """Fails the first attempts to wake a version, if told so; counts those that are given up."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self.errors = list(errors)
        self.given_up = 0

    async def wake(self, key: VersionKey) -> None:
        if self.errors:
            self.wakes.append(key)
            raise self.errors.pop(0)
        try:
            await super().wake(key)
        except asyncio.CancelledError:
            self.given_up += 1
            raise


def sleeping(gateway: FakeGateway, **options: float) -> DataPlane:
    """A data plane with one model, whose only version has no replica and wakes."""
    target = DataPlane(gateway, RequestLimits())
    batching = BatchingPolicy.model_validate(options)
    target.update(route_table(model_route(replicas={"1": 0}, wakes=True, batching=batching)))
    return target


def awake(target: DataPlane, replicas: int = 1, *, wakes: bool = True) -> None:
    """The next route table."""
    table = route_table(
        model_route(replicas={"1": replicas}, wakes=wakes), revision=target.table.revision + 1
    )
    target.update(table)


def ask(target: DataPlane, value: float = 1.0, timeout_s: float = 5.0) -> asyncio.Task[Outcome]:
    async def one() -> Outcome:
        row = np.full((1, 4), value, np.float32)
        request = InferenceRequest("echo", None, {"x": row}, "id", timeout_s, ())
        try:
            return await target.infer(request, RequestTrace("test", "id"))
        except ServeAppError as error:
            return error

    return asyncio.create_task(one())


async def settled() -> None:
    """Lets everything happen that needs no time."""
    for _ in range(10):
        await asyncio.sleep(0)


def values(outcomes: Sequence[Outcome]) -> list[float]:
    assert all(isinstance(each, InferenceResult) for each in outcomes), outcomes
    return [
        float(each.outputs["x"][0, 0]) for each in outcomes if isinstance(each, InferenceResult)
    ]


async def test_all_wait_for_one_call_and_then_leave_together() -> None:
    gateway = SleepyGateway()
    target = sleeping(gateway)
    asked = [ask(target, value) for value in range(20)]
    await settled()
    asked += [ask(target, value) for value in range(20, 40)]
    await settled()
    assert (gateway.wakes, gateway.batches) == ([KEY], [])
    assert target.queues[KEY].queued_rows == 40
    gateway.awake.set()
    assert values(await asyncio.gather(*asked)) == list(range(40))
    assert gateway.batches[0][1].rows[:20] == (1,) * 20
    await ask(target)
    assert gateway.wakes == [KEY]


async def test_a_table_with_a_replica_wakes_as_well() -> None:
    gateway = SleepyGateway()
    target = sleeping(gateway)
    asked = ask(target, 7.0)
    await settled()
    awake(target)
    assert values([await asked]) == [7.0]
    assert gateway.given_up == 1


async def test_a_table_that_lags_behind_costs_one_more_call_only() -> None:
    gateway = SleepyGateway()
    target = sleeping(gateway)
    gateway.awake.set()
    assert values([await ask(target)]) == [1.0]
    awake(target, replicas=0)
    assert values([await ask(target, 2.0)]) == [2.0]
    assert gateway.wakes == [KEY, KEY]


async def test_who_cannot_wait_that_long_is_told_so_and_the_call_is_given_up() -> None:
    gateway = SleepyGateway()
    target = sleeping(gateway)
    assert isinstance(await ask(target, timeout_s=0.05), DeadlineExceeded)
    await settled()
    assert gateway.given_up == 1
    patient = ask(target)
    await settled()
    assert gateway.wakes == [KEY, KEY]
    gateway.awake.set()
    assert values([await patient]) == [1.0]


async def test_the_call_goes_on_while_anybody_waits() -> None:
    gateway = SleepyGateway()
    target = sleeping(gateway)
    patient, hasty, gone = ask(target, 3.0), ask(target, timeout_s=0.05), ask(target)
    await settled()
    gone.cancel()
    assert isinstance(await hasty, DeadlineExceeded)
    assert not gateway.given_up
    gateway.awake.set()
    assert values([await patient]) == [3.0]
    assert len(gateway.wakes) == 1


async def test_a_version_that_cannot_be_woken_fails_those_who_wait_and_the_next_may_try() -> None:
    gateway = SleepyGateway(NotReady("no"), RuntimeError("bug"))
    target = sleeping(gateway)
    assert [type(await each) for each in (ask(target), ask(target))] == [NotReady, NotReady]
    assert type(await ask(target)) is ServeAppError
    gateway.awake.set()
    assert values([await ask(target)]) == [1.0]


async def test_a_replica_that_dies_at_once_is_not_the_last_word() -> None:
    gateway = SleepyGateway(ReplicaLost("gone"))
    target = sleeping(gateway)
    gateway.awake.set()
    assert values([await ask(target)]) == [1.0]
    assert gateway.wakes == [KEY, KEY]


async def test_a_table_that_says_it_cannot_start_fails_those_who_wait() -> None:
    gateway = SleepyGateway()
    target = sleeping(gateway)
    asked = ask(target)
    await settled()
    awake(target, replicas=0, wakes=False)
    outcome = await asked
    assert isinstance(outcome, NotReady)
    assert "could not be started" in str(outcome)
    assert gateway.given_up == 1
    assert isinstance(await ask(target), NotReady)


async def test_the_room_is_bounded_while_all_wait() -> None:
    gateway = SleepyGateway()
    target = sleeping(gateway, max_queue_rows=2)
    asked = [ask(target, value) for value in range(3)]
    await settled()
    assert isinstance(await asked[2], Overloaded)
    gateway.awake.set()
    assert values(await asyncio.gather(*asked[:2])) == [0.0, 1.0]


async def test_a_member_whose_replica_was_the_last_waits_for_the_next() -> None:
    class Dying(SleepyGateway):
        async def call(self, key, batch, timeout_s):  # type: ignore[no-untyped-def]
            if not self.batches:
                self.batches.append((key, batch))
                queue.follow(BatchingPolicy(), 1, asleep=True)
                raise ReplicaLost("gone")
            return await super().call(key, batch, timeout_s)

    gateway = Dying()
    queue = VersionQueue(KEY, gateway, BatchingPolicy(), slots=1)
    answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    queue.submit(
        {"x": np.ones((1, 4), np.float32)},
        rows=1,
        size=16,
        deadline=monotonic() + 5.0,
        signature=(),
        trace=RequestTrace("test", "id"),
        settle=lambda outputs, error: answered.set_result(outputs or error),
    )
    await settled()
    assert gateway.wakes == [KEY]
    gateway.awake.set()
    assert "x" in (await answered)  # type: ignore[operator]


async def test_one_who_gives_up_after_a_lost_replica_ends_the_call() -> None:
    gateway = SleepyGateway()
    queue = VersionQueue(KEY, gateway, BatchingPolicy(), slots=1)
    failed: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    def lost(*_: object) -> None:
        queue.follow(BatchingPolicy(), 1, asleep=True)
        raise ReplicaLost("gone")

    gateway.compute = lost  # type: ignore[assignment]
    queue.submit(
        {"x": np.ones((1, 4), np.float32)},
        rows=1,
        size=16,
        deadline=monotonic() + 0.05,
        signature=(),
        trace=RequestTrace("test", "id"),
        settle=lambda outputs, error: failed.set_result(error),
    )
    assert isinstance(await failed, DeadlineExceeded)
    await settled()
    assert (len(gateway.wakes), gateway.given_up) == (1, 1)


def test_a_version_that_sleeps_keeps_its_share_of_the_traffic() -> None:
    model = model_route(
        weights={"1": 90, "2": 10}, replicas={"1": 0, "2": 1}, wakes=True, fallback="1"
    )
    assert model.ready
    assert [arm.choice.route.key.version for arm in model.arms] == ["1", "2"]
    assert model.arms[1].choice.spare is model.versions["1"]
    assert model.versions["1"].asleep
    assert not model.versions["2"].asleep


@pytest.mark.parametrize("wakes", [True, False])
def test_only_a_version_that_wakes_is_ready_without_a_replica(wakes: bool) -> None:
    model = model_route(replicas={"1": 0}, wakes=wakes)
    assert model.ready is wakes
    assert model.versions["1"].answers is wakes
