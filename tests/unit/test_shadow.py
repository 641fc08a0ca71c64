"""Mirrored requests: who is mirrored, what is compared, and that nobody feels it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from serve_app import shadow as shadow_module
from serve_app.config.ingress import RequestLimits
from serve_app.dataplane import DataPlane
from serve_app.domain import comparison
from serve_app.domain.arms import IngressReport, ShadowCounts
from serve_app.domain.inference import BatchResult, InferenceBatch, InferenceRequest, VersionKey
from serve_app.domain.routing import BatchingPolicy, choose_version
from serve_app.domain.tensor import Array
from serve_app.errors import ModelFailed, NotReady, Overloaded, ReplicaLost, ServeAppError
from serve_app.telemetry.trace import RequestTrace
from serve_app.testing import FakeGateway, identity, model_route, route_table

ROW: Array = np.ones((1, 4), np.float32)
ONE, TWO, THREE = (VersionKey("echo", version) for version in "123")
ALL = ({"version": "3", "percent": 100},)


class Versions(FakeGateway):
    """Each version may be slow, fail, or answer in its own way."""

    def __init__(
        self,
        *,
        slow: Mapping[str, float] | None = None,
        broken: Mapping[str, ServeAppError] | None = None,
        compute: Callable[[VersionKey, Mapping[str, Array]], Mapping[str, Array]] = identity,
    ) -> None:
        super().__init__(compute)
        self.slow, self.broken = slow or {}, broken or {}

    async def call(self, key: VersionKey, batch: InferenceBatch, timeout_s: float) -> BatchResult:
        self.batches.append((key, batch))
        await asyncio.sleep(self.slow.get(key.version, 0.0))
        if key.version in self.broken:
            raise self.broken[key.version]
        return BatchResult(self.compute(key, batch.inputs), {}, 0.0)

    @property
    def asked(self) -> list[str]:
        return [key.version for key, _ in self.batches]


def plane(gateway: FakeGateway, **release: Any) -> DataPlane:
    """Version 1 answers, version 3 is mirrored to."""
    target = DataPlane(gateway, RequestLimits())
    release = {"replicas": {"3": 1}, "mirror": ALL, **release}
    target.update(route_table(model_route(**release)))
    return target


async def infer(target: DataPlane, number: int = 0, version: str | None = None) -> RequestTrace:
    trace = RequestTrace("test", f"id-{number}")
    await target.infer(InferenceRequest("echo", version, {"x": ROW}, trace.request_id), trace)
    return trace


async def settled(target: DataPlane) -> IngressReport:
    """The report once no shadow is out any more."""
    async with asyncio.timeout(5.0):
        while target.shadows.out:  # noqa: ASYNC110  # nobody is told when a shadow ends
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.005)
    report = target.arms.take("i", 1)
    assert report is not None
    return report


def doubled(key: VersionKey, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """Version 3 answers something else."""
    return {"x": inputs["x"] * 2} if key == THREE else inputs


async def test_a_shadow_computes_the_same_and_is_compared() -> None:
    gateway = Versions()
    target = plane(gateway)
    trace = await infer(target)
    report = await settled(target)
    assert gateway.asked == ["1", "3"]
    assert np.array_equal(gateway.batches[1][1].inputs["x"], ROW)
    assert report.shadows == {THREE: ShadowCounts(1, 0, 0, 0)}
    assert report.arms[ONE].requests == 1
    assert THREE not in report.arms
    assert (trace.version, trace.arm, trace.protocol) == ("1", "1", "test")


async def test_answers_that_differ_are_sampled_with_both() -> None:
    target = plane(Versions(compute=doubled))
    for number in range(30):
        await infer(target, number)
        await asyncio.sleep(0.001)
    report = await settled(target)
    assert report.shadows == {THREE: ShadowCounts(30, 30, 0, 0)}
    assert len(report.disagreements) == 20
    first = report.disagreements[0]
    assert (first.request_id, first.primary, first.shadow) == ("id-0", ONE, THREE)
    assert first.differences == {"x": "row 0: [1, 1, 1, 1] against [2, 2, 2, 2]"}


async def test_a_share_of_the_requests_is_mirrored_and_always_the_same_ones() -> None:
    found = []
    for _ in range(2):
        gateway = Versions()
        target = plane(gateway, mirror=({"version": "3", "percent": 20},))
        for number in range(300):
            await infer(target, number)
            await asyncio.sleep(0)
        await settled(target)
        found.append([b.request_ids[0] for key, b in gateway.batches if key == THREE])
    assert found[0] == found[1]
    assert len(found[0]) == pytest.approx(60, abs=25)


async def test_pinned_requests_are_not_mirrored() -> None:
    gateway = Versions()
    target = plane(gateway)
    await infer(target, version="1")
    assert gateway.asked == ["1"]


async def test_a_slow_shadow_holds_nobody_up() -> None:
    gateway = Versions(slow={"3": 0.2})
    target = plane(gateway)
    for number in range(20):
        await infer(target, number)
        assert target.in_flight == 0
    assert gateway.asked.count("1") == 20
    assert target.shadows.out >= 1
    report = await settled(target)
    counts = report.shadows[THREE]
    assert counts.compared + counts.dropped == 20
    assert counts.dropped > 0  # while the others were out, rows waited
    assert report.arms[ONE].requests == 20


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (ModelFailed("x"), ShadowCounts(0, 0, 0, 1)),
        (ReplicaLost("x"), ShadowCounts(0, 0, 0, 1)),
        (Overloaded("x"), ShadowCounts(0, 0, 1, 0)),
        (NotReady("x"), ShadowCounts(0, 0, 1, 0)),
    ],
)
async def test_a_shadow_that_fails_is_not_tried_again(
    error: ServeAppError, counts: ShadowCounts
) -> None:
    gateway = Versions(broken={"3": error})
    target = plane(gateway)
    trace = await infer(target)
    report = await settled(target)
    assert report.shadows == {THREE: counts}
    assert gateway.asked == ["1", "3"]
    assert (trace.version, report.arms[ONE].faults) == ("1", 0)


async def test_a_request_that_failed_is_not_compared() -> None:
    gateway = Versions(slow={"1": 0.01, "3": 5.0}, broken={"1": ModelFailed("x")})
    target = plane(gateway)
    with pytest.raises(ModelFailed):
        await infer(target)
    report = await settled(target)  # the shadow is taken back, not waited for
    assert report.shadows == {}


async def test_a_client_that_leaves_takes_its_shadow_along() -> None:
    target = plane(Versions(slow={"1": 5.0, "3": 5.0}))
    task = asyncio.ensure_future(infer(target))
    await asyncio.sleep(0.01)
    assert target.shadows.out == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert target.shadows.out == 0
    await asyncio.sleep(0)
    assert all(not queue.in_flight for queue in target.queues.values())


async def test_a_client_that_leaves_at_once_never_had_one() -> None:
    gateway = Versions()
    target = plane(gateway)
    request = InferenceRequest("echo", None, {"x": ROW}, "id")
    target.start(request, RequestTrace("test", "id"), lambda *_: None).cancel()
    await asyncio.sleep(0.01)
    assert gateway.asked == []
    assert target.shadows.out == 0


async def test_arrivals_of_one_turn_are_mirrored_together_behind_their_own_batch() -> None:
    gateway = Versions(slow={"1": 0.01})
    target = plane(gateway)
    await asyncio.gather(*[infer(target, number) for number in range(8)])
    report = await settled(target)
    assert [(key, sum(batch.rows)) for key, batch in gateway.batches] == [(ONE, 8), (THREE, 8)]
    assert report.shadows == {THREE: ShadowCounts(8, 0, 0, 0)}


async def test_while_clients_wait_nothing_is_mirrored() -> None:
    gateway = Versions(slow={"1": 0.05})
    policy = BatchingPolicy(max_rows=1, slots_per_replica=1, adaptive=False)
    target = plane(gateway, batching=policy)
    await asyncio.gather(*[infer(target, number) for number in range(5)])
    report = await settled(target)
    counts = report.shadows[THREE]
    assert counts.dropped == 5
    assert gateway.asked == ["1"] * 5


async def test_only_so_many_are_out_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow_module, "MAX_OUT", 3)
    target = plane(Versions(slow={"3": 0.2}))
    await asyncio.gather(*[infer(target, number) for number in range(8)])
    assert target.shadows.out == 3
    report = await settled(target)
    assert report.shadows == {THREE: ShadowCounts(3, 0, 5, 0)}


async def test_a_version_with_clients_of_its_own_gets_shadows_only_while_it_is_idle() -> None:
    gateway = Versions(slow={"3": 0.3})
    target = plane(gateway, weights={"1": 99, "3": 1}, replicas={})
    own = asyncio.ensure_future(infer(target, version="3"))
    await asyncio.sleep(0.01)
    mirrored = [number for number in range(20) if arm(target, number) == "1"]
    await asyncio.gather(*[infer(target, number) for number in mirrored])
    report = await settled(target)
    assert report.shadows[THREE] == ShadowCounts(0, 0, len(mirrored), 0)
    await own
    await infer(target, mirrored[0])
    report = await settled(target)
    assert report.shadows[THREE] == ShadowCounts(1, 0, 0, 0)


def arm(target: DataPlane, number: int) -> str:
    return choose_version(target.table.model("echo"), None, f"id-{number}").arm


async def test_a_shadow_shares_no_batch_with_a_client() -> None:
    gateway = Versions()
    target = plane(gateway)
    trace = RequestTrace("test", "own")
    primary = asyncio.ensure_future(infer(target))
    while not target.shadows.out:  # noqa: ASYNC110  # its flush is due at the end of that turn
        await asyncio.sleep(0)
    own = InferenceRequest("echo", "3", {"x": ROW}, "own")
    assert target.queues[THREE].queued_rows == 1
    target.start(own, trace, lambda *_: None)
    await primary
    await settled(target)
    assert [batch.request_ids for key, batch in gateway.batches if key == THREE] == [
        ("id-0",),
        ("own",),
    ]


async def test_a_version_is_not_mirrored_to_itself() -> None:
    gateway = Versions()
    target = plane(gateway, weights={"3": 100}, replicas={})
    await infer(target)
    assert gateway.asked == ["3"]
    fallen = plane(
        Versions(broken={"1": ModelFailed("x")}, slow={"1": 0.01}), fallback="3", idempotent=False
    )
    trace = await infer(fallen)
    assert (trace.version, trace.fallback_from) == ("3", "1")
    report = await settled(fallen)
    assert report.shadows.get(THREE, ShadowCounts(0, 0, 0, 0)).compared == 0


async def test_a_version_that_is_not_ready_drops_its_shadows() -> None:
    gateway = Versions()
    target = plane(gateway, replicas={"3": 0})
    await infer(target)
    report = await settled(target)
    assert report.shadows == {THREE: ShadowCounts(0, 0, 1, 0)}
    assert gateway.asked == ["1"]


async def test_a_comparison_that_breaks_is_a_failed_shadow(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(*_: object) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr(comparison, "_agreeing", explode)
    target = plane(Versions())
    await infer(target)
    report = await settled(target)
    assert report.shadows == {THREE: ShadowCounts(0, 0, 0, 1)}
    assert "cannot compare" in caplog.text


async def test_outputs_that_were_not_asked_for_are_compared_as_well() -> None:
    def two(key: VersionKey, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"x": inputs["x"], "z": np.full((1, 1), float(key.version))}

    target = plane(Versions(compute=two))
    request = InferenceRequest("echo", None, {"x": ROW}, "id", outputs=("x",))
    result = await target.infer(request, RequestTrace("test", "id"))
    assert list(result.outputs) == ["x"]
    report = await settled(target)
    assert report.disagreements[0].differences == {"z": "row 0: [1] against [3]"}
