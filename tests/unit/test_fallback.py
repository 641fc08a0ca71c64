"""Another version answers when the chosen one cannot; what is counted of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from serve_app.config.ingress import RequestLimits
from serve_app.dataplane import DataPlane
from serve_app.domain.arms import ArmCounts, IngressReport
from serve_app.domain.caller import MetadataCaller
from serve_app.domain.inference import BatchResult, InferenceBatch, InferenceRequest, VersionKey
from serve_app.domain.routing import BatchingPolicy
from serve_app.domain.tensor import Array
from serve_app.errors import (
    DeadlineExceeded,
    InvalidInput,
    ModelFailed,
    NotReady,
    Overloaded,
    PayloadTooLarge,
    ReplicaLost,
    ServeAppError,
)
from serve_app.telemetry.trace import RequestTrace
from serve_app.testing import FakeGateway, model_route, route_table

ROW: Array = np.ones((1, 4), np.float32)
ONE, TWO = VersionKey("echo", "1"), VersionKey("echo", "2")
TIGHT = BatchingPolicy(max_rows=1, slots_per_replica=1, max_queue_rows=1, adaptive=False)


class Broken(FakeGateway):
    """Version 2 fails with an error; the others answer."""

    def __init__(self, error: Exception, delay_s: float = 0.0) -> None:
        super().__init__(delay_s=delay_s)
        self.error = error

    async def call(self, key: VersionKey, batch: InferenceBatch, timeout_s: float) -> BatchResult:
        result = await super().call(key, batch, timeout_s)
        if key.version == "2":
            raise self.error
        return result

    @property
    def asked(self) -> list[str]:
        return [key.version for key, _ in self.batches]


def plane(gateway: FakeGateway, **release: Any) -> DataPlane:
    """All traffic goes to version 2; version 1 stands by."""
    target = DataPlane(gateway, RequestLimits())
    release = {"weights": {"2": 100, "1": 0}, "fallback": "1", "idempotent": False, **release}
    target.update(route_table(model_route(**release)))
    return target


async def infer(target: DataPlane, version: str | None = None, **request: Any) -> RequestTrace:
    trace = RequestTrace("test", "id")
    inputs: Mapping[str, Array] = request.pop("inputs", {"x": ROW})
    await target.infer(InferenceRequest("echo", version, inputs, "id", **request), trace)
    return trace


def report(target: DataPlane) -> IngressReport:
    found = target.arms.take("i", 1)
    assert found is not None
    return found


def totals(target: DataPlane) -> dict[VersionKey, tuple[int, int, int]]:
    """Requests, faults and latencies of each arm."""
    arms = report(target).arms
    return {key: (arm.requests, arm.faults, sum(arm.latency)) for key, arm in arms.items()}


async def fill(target: DataPlane, *versions: str) -> list[asyncio.Future[RequestTrace]]:
    """Gives versions with a `TIGHT` queue one request to work on, and one that waits."""
    tasks: list[asyncio.Future[RequestTrace]] = []
    for _ in range(2):
        tasks += [asyncio.ensure_future(infer(target, version)) for version in versions]
        await asyncio.sleep(0.01)
    return tasks


OWN_FAULTS = [NotReady("x"), Overloaded("x"), ReplicaLost("x"), ModelFailed("x")]


@pytest.mark.parametrize("error", OWN_FAULTS, ids=lambda error: error.code)
async def test_the_fallback_answers_and_the_arm_pays(error: ServeAppError) -> None:
    gateway = Broken(error)
    target = plane(gateway)
    trace = await infer(target)
    assert gateway.asked == ["2", "1"]
    assert (trace.version, trace.arm) == ("1", "2")
    assert (trace.fallback_from, trace.fallback_reason) == ("2", error.code)
    assert totals(target) == {TWO: (1, 1, 0)}
    assert target.in_flight == 0


@pytest.mark.parametrize("error", [DeadlineExceeded("x"), ServeAppError("x")])
async def test_other_errors_are_the_answer(error: ServeAppError) -> None:
    gateway = Broken(error)
    target = plane(gateway)
    with pytest.raises(type(error)):
        await infer(target)
    assert gateway.asked == ["2"]
    assert totals(target) == {TWO: (1, 1, 0)}


@pytest.mark.parametrize("pinned", ["2", "canary"])
async def test_nobody_stands_in_for_a_version_that_was_asked_for(pinned: str) -> None:
    gateway = Broken(ModelFailed("x"))
    target = plane(gateway, labels={"canary": "2"})
    with pytest.raises(ModelFailed):
        await infer(target, pinned)
    assert gateway.asked == ["2"]
    assert target.arms.take("i", 1) is None
    with pytest.raises(NotReady):
        await infer(plane(gateway, replicas={"2": 0}, labels={"canary": "2"}), pinned)


async def test_a_version_that_was_chosen_by_a_rule_falls_back_and_is_no_arm() -> None:
    gateway = Broken(ModelFailed("x"))
    rules = ({"match": {"tenant": "acme"}, "version": "2"},)
    target = plane(gateway, weights={"1": 100, "2": 0}, rules=rules)
    trace = await infer(target, caller=MetadataCaller({"x-tenant-id": "acme"}))
    assert (trace.version, trace.arm, trace.fallback_from) == ("1", "", "2")
    assert target.arms.take("i", 1) is None


async def test_a_version_without_a_replica_falls_back_at_once() -> None:
    gateway = FakeGateway()
    target = plane(gateway, replicas={"2": 0})
    assert target.admit("echo", None).name == "echo"
    trace = await infer(target)
    assert (trace.version, trace.fallback_from, trace.fallback_reason) == ("1", "2", "not_ready")
    assert totals(target) == {TWO: (1, 1, 0)}
    assert [key.version for key, _ in gateway.batches] == ["1"]
    alone = plane(gateway, replicas={"2": 0}, fallback=None)
    with pytest.raises(NotReady):
        alone.admit("echo", None)
    with pytest.raises(NotReady):
        await infer(alone)
    assert totals(alone) == {TWO: (2, 2, 0)}


async def test_a_full_queue_falls_back_also_before_the_body_is_read() -> None:
    gateway = FakeGateway(delay_s=0.3)
    target = plane(gateway, batching=TIGHT)
    busy = await fill(target, "2")
    target.admit("echo", None)
    trace = await infer(target)
    assert (trace.version, trace.fallback_reason) == ("1", "overloaded")
    await asyncio.gather(*busy)
    assert totals(target) == {TWO: (1, 1, 0)}


async def test_when_both_are_full_the_first_error_is_told_and_counted_once() -> None:
    gateway = FakeGateway(delay_s=0.3)
    target = plane(gateway, batching=TIGHT)
    busy = await fill(target, "1", "2")
    with pytest.raises(Overloaded):
        target.admit("echo", None)
    with pytest.raises(Overloaded):
        await infer(target)
    assert totals(target) == {TWO: (2, 2, 0)}
    await asyncio.gather(*busy)
    assert target.in_flight == 0


async def test_a_fallback_that_fails_as_well() -> None:
    class AllBroken(Broken):
        async def call(self, key: VersionKey, batch: InferenceBatch, timeout_s: float) -> Any:
            await FakeGateway.call(self, key, batch, timeout_s)
            raise ModelFailed(key.version)

    gateway = AllBroken(ModelFailed("x"))
    target = plane(gateway)
    with pytest.raises(ModelFailed, match="1"):
        await infer(target)
    assert gateway.asked == ["2", "1"]
    assert totals(target) == {TWO: (1, 1, 0)}
    assert target.in_flight == 0


async def test_both_share_one_deadline() -> None:
    gateway = Broken(ModelFailed("x"), delay_s=0.3)
    target = plane(gateway)
    with pytest.raises(DeadlineExceeded):
        await infer(target, timeout_s=0.5)
    assert gateway.asked == ["2", "1"]
    budgets = [batch.budgets_s[0] for _, batch in gateway.batches]
    assert budgets[1] < budgets[0] <= 0.5


async def test_a_missing_output_is_a_fault_of_the_version() -> None:
    gateway = FakeGateway(lambda key, inputs: {} if key.version == "2" else inputs)
    trace = await infer(plane(gateway), outputs=("x",))
    assert (trace.version, trace.fallback_reason) == ("1", "model_failed")


async def test_a_fallback_that_was_removed_meanwhile() -> None:
    target = plane(Broken(ModelFailed("x"), delay_s=0.1))
    task = asyncio.ensure_future(infer(target))
    await asyncio.sleep(0.01)
    target.update(route_table(model_route(weights={"2": 100}), revision=2))
    with pytest.raises(ModelFailed):
        await task
    assert list(target.queues) == [TWO]
    assert target.in_flight == 0


async def test_cancelling_reaches_the_fallback() -> None:
    class Slow(Broken):
        async def call(self, key: VersionKey, batch: InferenceBatch, timeout_s: float) -> Any:
            self.delay_s = 0.0 if key.version == "2" else 5.0
            return await super().call(key, batch, timeout_s)

    gateway = Slow(ModelFailed("x"))
    target = plane(gateway)
    task = asyncio.ensure_future(infer(target))
    await asyncio.sleep(0.02)
    assert gateway.asked == ["2", "1"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert target.in_flight == 0
    assert all(not queue.in_flight for queue in target.queues.values())


# What is counted of an arm


async def test_answers_are_counted_by_the_arm_with_their_latency() -> None:
    target = plane(FakeGateway(), fallback=None)
    for _ in range(3):
        await infer(target)
    await infer(target, "1")
    assert totals(target) == {TWO: (3, 0, 3)}


async def test_faults_of_clients_are_not_the_arms() -> None:
    class Picky(FakeGateway):
        async def call(self, key: VersionKey, batch: InferenceBatch, timeout_s: float) -> Any:
            raise InvalidInput("the text is too long", "inputs[0]")

    target = plane(Picky())
    with pytest.raises(InvalidInput):
        await infer(target, inputs={"x": ROW[:, :3]})
    assert target.arms.take("i", 1) is None  # it never reached the model
    with pytest.raises(InvalidInput):
        await infer(target)
    assert totals(target) == {TWO: (1, 0, 1)}
    small = BatchingPolicy(max_queue_bytes=8)
    with pytest.raises(PayloadTooLarge):
        await infer(plane(Picky(), batching=small))


@pytest.mark.parametrize(("delay_s", "counted"), [(0.0, 0), (0.02, 1)])
async def test_who_gives_up_is_counted_once_the_model_has_the_request(
    delay_s: float, counted: int
) -> None:
    """Else an arm that is so slow that its clients leave would look fast."""
    target = plane(FakeGateway(delay_s=5.0))
    trace = RequestTrace("test", "id")
    heard: list[object] = []
    ticket = target.start(
        InferenceRequest("echo", None, {"x": ROW}, "id"), trace, lambda *end: heard.append(end)
    )
    await asyncio.sleep(delay_s)
    if counted:
        ticket.cancel()
        assert totals(target) == {TWO: (1, 0, 1)}
    else:
        ticket.queue.withdraw(ticket.member)
        assert target.arms.take("i", 1) is None
    assert heard == []


async def test_a_model_with_one_version_is_not_counted() -> None:
    target = DataPlane(FakeGateway(), RequestLimits())
    target.update(route_table())
    await infer(target)
    assert target.arms.take("i", 1) is None


async def test_exposures_are_what_the_arm_answered_itself() -> None:
    outcomes = {"kind": "label", "output": "x"}
    target = plane(FakeGateway(), outcomes=outcomes)
    inputs = {"x": np.array([[0, 1, 5, 2], [7, 1, 1, 1]], np.float32)}
    await infer(target, inputs=inputs)
    await infer(target, "2", inputs=inputs)
    found = report(target)
    assert [(each.key, each.prediction) for each in found.exposures] == [(TWO, (2, 0))]
    broken = plane(Broken(ModelFailed("x")), outcomes=outcomes)
    await infer(broken)
    found = report(broken)
    assert found.exposures == ()
    assert found.arms == {TWO: ArmCounts(1, 1, found.arms[TWO].latency)}
