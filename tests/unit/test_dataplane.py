"""The data plane: checks against the signature, versions, deadlines, tables."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from serve_app.config.ingress import RequestLimits
from serve_app.dataplane import DataPlane
from serve_app.domain.batching_policy import BatchingPolicy
from serve_app.domain.inference import InferenceRequest, InferenceResult, Layout
from serve_app.domain.tensor import Array, TensorSpec
from serve_app.errors import (
    DeadlineExceeded,
    Draining,
    InvalidInput,
    ModelFailed,
    ModelNotFound,
    NotReady,
    Overloaded,
    PayloadTooLarge,
    ServeAppError,
    VersionNotFound,
)
from serve_app.telemetry.trace import RequestTrace
from serve_app.testing import FakeGateway, model_route, route_table
from serve_app.ticket import Ticket

ROW: Array = np.ones((1, 4), np.float32)


def plane(gateway: FakeGateway | None = None, **limits: int) -> DataPlane:
    target = DataPlane(gateway or FakeGateway(), RequestLimits(**limits))
    target.update(route_table())
    return target


async def infer(
    target: DataPlane,
    inputs: Mapping[str, Array] | None = None,
    *,
    model: str = "echo",
    version: str | None = None,
    timeout_s: float | None = None,
    outputs: tuple[str, ...] = (),
    trace: RequestTrace | None = None,
) -> InferenceResult:
    request = InferenceRequest(
        model, version, {"x": ROW} if inputs is None else inputs, "id", timeout_s, outputs
    )
    return await target.infer(request, trace or RequestTrace("test", "id"))


async def test_an_answer_names_its_version_and_fills_the_trace() -> None:
    trace = RequestTrace("test", "id")
    result = await infer(plane(), trace=trace)
    assert (result.model, result.version) == ("echo", "1")
    assert np.array_equal(result.outputs["x"], ROW)
    assert (trace.model, trace.version, trace.rows, trace.batch_rows) == ("echo", "1", 1, 1)


WRONG: list[tuple[dict[str, Array], str, str]] = [
    ({}, "input 'x' is missing", "inputs"),
    ({"y": ROW}, "input 'x' is missing", "inputs"),
    ({"x": ROW, "y": ROW}, "'y' is not an input", "inputs[1].name"),
    ({"x": ROW.astype(np.float64)}, "FP64 is not the declared FP32", "inputs[0].datatype"),
    ({"x": np.ones((1, 3), np.float32)}, r"shape \[1, 3\] does not fit", "inputs[0].shape"),
    ({"x": np.ones((4,), np.float32)}, r"shape \[4\] does not fit", "inputs[0].shape"),
    ({"x": np.ones((0, 4), np.float32)}, "at least one row", "inputs[0].shape"),
]


@pytest.mark.parametrize(("inputs", "text", "field"), WRONG)
async def test_wrong_inputs_name_the_field(inputs: dict[str, Array], text: str, field: str) -> None:
    gateway = FakeGateway()
    with pytest.raises(InvalidInput, match=text) as caught:
        await infer(plane(gateway), inputs)
    assert caught.value.field == field
    assert not gateway.batches


async def test_inputs_must_agree_on_rows() -> None:
    specs = (
        TensorSpec(name="a", datatype="FP32", shape=(-1, 1)),
        TensorSpec(name="b", datatype="INT64", shape=(-1,)),
    )
    target = plane()
    target.update(route_table(model_route("two", inputs=specs), revision=2))
    inputs: dict[str, Array] = {"a": np.ones((2, 1), np.float32), "b": np.ones(3, np.int64)}
    with pytest.raises(InvalidInput, match="same number of rows"):
        await infer(target, inputs, model="two")


async def test_caps() -> None:
    with pytest.raises(PayloadTooLarge, match="3 rows"):
        await infer(plane(max_rows=2), {"x": np.ones((3, 4), np.float32)})
    with pytest.raises(PayloadTooLarge, match="at most 1"):
        await infer(plane(max_tensors=1), {"x": ROW, "y": ROW})


async def test_requested_outputs() -> None:
    specs = tuple(TensorSpec(name=name, datatype="FP32", shape=(-1, 4)) for name in "ab")
    target = plane()
    target.update(route_table(model_route("two", inputs=specs), revision=2))
    inputs = {"a": ROW, "b": ROW * 2}
    result = await infer(target, inputs, model="two", outputs=("b",))
    assert list(result.outputs) == ["b"]
    with pytest.raises(InvalidInput, match="'c' is not an output") as caught:
        await infer(target, inputs, model="two", outputs=("b", "c"))
    assert caught.value.field == "outputs[1].name"


@pytest.mark.parametrize(
    ("model", "version", "error"),
    [("no", None, ModelNotFound), ("echo", "9", VersionNotFound)],
)
async def test_unknown_names_never_reach_a_label(
    model: str, version: str | None, error: type[ServeAppError]
) -> None:
    trace = RequestTrace("test", "id")
    with pytest.raises(error):
        await infer(plane(), model=model, version=version, trace=trace)
    assert trace.model in ("", "echo")
    assert trace.version == ""


async def test_models_without_rows_go_one_by_one() -> None:
    spec = TensorSpec(name="x", datatype="FP32", shape=(4,))
    gateway = FakeGateway(delay_s=0.01)
    target = plane(gateway)
    target.update(route_table(model_route("solo", inputs=(spec,)), revision=2))
    one = {"x": np.ones(4, np.float32)}
    await asyncio.gather(*[infer(target, one, model="solo") for _ in range(5)])
    assert [batch.rows for _, batch in gateway.batches] == [(1,)] * 5


async def test_requests_of_different_shapes_never_share_a_batch() -> None:
    spec = TensorSpec(name="x", datatype="FP32", shape=(-1, -1))
    gateway = FakeGateway(delay_s=0.01)
    target = plane(gateway)
    target.update(route_table(model_route("wide", inputs=(spec,)), revision=2))
    inputs: list[dict[str, Array]] = [{"x": np.ones((1, n % 2 + 1), np.float32)} for n in range(6)]
    await asyncio.gather(*[infer(target, each, model="wide") for each in inputs])
    assert sorted(batch.rows for _, batch in gateway.batches) == [(1, 1, 1), (1, 1, 1)]


async def test_the_client_can_shorten_the_deadline_only() -> None:
    gateway = FakeGateway(delay_s=0.3)
    target = plane(gateway)
    with pytest.raises(DeadlineExceeded):
        await infer(target, timeout_s=0.01)
    target.update(route_table(model_route(timeout_s=0.02), revision=2))
    with pytest.raises(DeadlineExceeded):
        await asyncio.wait_for(infer(target, timeout_s=100.0), 0.2)
    assert target.in_flight == 0


async def test_tables_only_move_forward_in_one_step() -> None:
    target = plane()
    target.update(route_table(model_route("new"), revision=5))
    target.update(route_table(model_route("old"), revision=4))
    await infer(target, model="new")
    with pytest.raises(ModelNotFound):
        await infer(target, model="old")


async def test_a_removed_version_fails_what_waits() -> None:
    policy = BatchingPolicy(max_rows=1, slots_per_replica=1)
    gateway = FakeGateway(delay_s=0.05)
    target = plane(gateway)
    target.update(route_table(model_route("gone", batching=policy), revision=2))
    tasks = [asyncio.ensure_future(infer(target, model="gone")) for _ in range(3)]
    await asyncio.sleep(0.01)
    target.update(route_table(revision=3))
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    kinds = [type(answer).__name__ for answer in answers]
    assert kinds == ["InferenceResult", "NotReady", "NotReady"]


async def test_not_ready_and_draining() -> None:
    target = DataPlane(FakeGateway(), RequestLimits())
    assert not target.ready
    with pytest.raises(ModelNotFound):
        await infer(target)
    target.update(route_table(model_route(replicas={"1": 0})))
    with pytest.raises(NotReady):
        await infer(target)
    target.draining = True
    assert not target.ready
    with pytest.raises(Draining):
        await infer(target)


async def test_slots_are_shared_between_ingresses() -> None:
    gateway = FakeGateway(delay_s=0.02)
    policy = BatchingPolicy(max_rows=1, slots_per_replica=2)
    model = model_route(batching=policy, replicas={"1": 2})
    target = DataPlane(gateway, RequestLimits())
    table = route_table(model)
    target.update(type(table)(1, table.models, ingresses=2))
    tasks = [asyncio.ensure_future(infer(target)) for _ in range(6)]
    await asyncio.sleep(0.01)
    assert len(gateway.batches) == 2  # 2 replicas x 2 slots / 2 ingresses
    await asyncio.gather(*tasks)


@pytest.mark.parametrize(
    ("weights", "slots"),
    [({"1": 100}, 4), ({"1": 90, "2": 10}, 4), ({"1": 50, "2": 50}, 2), ({"1": 5, "2": 95}, 1)],
)
async def test_versions_that_share_the_traffic_share_the_slots(
    weights: dict[str, int], slots: int
) -> None:
    gateway = FakeGateway(delay_s=0.02)
    policy = BatchingPolicy(adaptive=False, max_rows=8, slots_per_replica=4)
    target = plane(gateway)
    target.update(route_table(model_route(batching=policy), revision=2))
    await infer(target, version="1")
    gateway.batches.clear()
    target.update(route_table(model_route(batching=policy, weights=weights), revision=3))
    tasks = [await _arrived(target) for _ in range(6)]
    assert len(gateway.batches) == slots
    await asyncio.gather(*tasks)


async def test_who_stands_in_for_a_version_that_is_away_has_its_slots() -> None:
    gateway = FakeGateway(delay_s=0.02)
    policy = BatchingPolicy(adaptive=False, max_rows=8, slots_per_replica=4)
    model = model_route(batching=policy, weights={"1": 50, "2": 50}, replicas={"2": 0})
    target = plane(gateway)
    target.update(route_table(model, revision=2))
    tasks = [await _arrived(target) for _ in range(6)]
    assert len(gateway.batches) == 4
    await asyncio.gather(*tasks)


async def _arrived(target: DataPlane, rows: int = 1) -> asyncio.Future[InferenceResult]:
    """A request to version 1, in a turn of the loop of its own."""
    inputs = {"x": np.repeat(ROW, rows, axis=0)}
    task = asyncio.ensure_future(infer(target, inputs, version="1"))
    await asyncio.sleep(0.001)
    return task


@pytest.mark.parametrize("adaptive", [False, True])
async def test_full_batches_leave_by_all_slots_of_their_version(adaptive: bool) -> None:
    gateway = FakeGateway(delay_s=0.02)
    policy = BatchingPolicy(adaptive=adaptive, max_rows=8, slots_per_replica=2)
    model = model_route(batching=policy, weights={"1": 50, "2": 50})
    target = plane(gateway)
    target.update(route_table(model, revision=2))
    tasks = [await _arrived(target), await _arrived(target)]
    assert len(gateway.batches) == 1
    tasks.append(await _arrived(target, rows=7))
    assert [sum(batch.rows) for _, batch in gateway.batches] == [1, 8]
    await asyncio.gather(*tasks)


async def test_every_replica_has_a_slot_however_small_the_share() -> None:
    gateway = FakeGateway(delay_s=0.02)
    policy = BatchingPolicy(max_rows=8, slots_per_replica=2)
    model = model_route(batching=policy, weights={"1": 5, "2": 95}, replicas={"1": 3})
    target = plane(gateway)
    target.update(route_table(model, revision=2))
    tasks = [await _arrived(target) for _ in range(6)]
    assert len(gateway.batches) == 3
    await asyncio.gather(*tasks)


async def test_a_full_queue_refuses_before_anything_is_read() -> None:
    policy = BatchingPolicy(max_rows=1, slots_per_replica=1, max_queue_rows=2)
    target = plane(FakeGateway(delay_s=0.3))
    target.update(route_table(model_route(batching=policy), revision=2))
    assert target.admit("echo", None).name == "echo"
    tasks = [asyncio.ensure_future(infer(target))]
    await asyncio.sleep(0.01)
    tasks += [asyncio.ensure_future(infer(target)) for _ in range(2)]
    await asyncio.sleep(0.01)
    for version in (None, "1"):
        with pytest.raises(Overloaded):
            target.admit("echo", version)
    await asyncio.gather(*tasks)
    target.admit("echo", None)
    with pytest.raises(ModelNotFound):
        target.admit("nothing", None)
    with pytest.raises(VersionNotFound):
        target.admit("echo", "9")
    target.draining = True
    with pytest.raises(Draining):
        target.admit("echo", None)


# Requests that are laid out alike


async def test_a_layout_is_checked_once_per_route() -> None:
    target, layout = plane(), Layout()
    for revision in (2, 3):
        for _ in range(2):
            trace = RequestTrace("test", "id")
            inputs = {"x": ROW.repeat(3, axis=0)}
            await target.infer(InferenceRequest("echo", None, inputs, "id", layout=layout), trace)
            assert (trace.rows, layout.rows, layout.size) == (3, 3, 48)
            assert layout.model is target.table.model("echo")
        target.update(route_table(revision=revision))
        assert layout.model is not target.table.model("echo")


async def test_a_layout_that_one_model_takes_is_checked_for_another() -> None:
    target, layout = plane(), Layout()
    narrow = TensorSpec(name="x", datatype="FP32", shape=(-1, 3))
    target.update(route_table(model_route(), model_route("narrow", inputs=(narrow,)), revision=2))
    request = InferenceRequest("echo", None, {"x": ROW}, "id", layout=layout)
    await target.infer(request, RequestTrace("test", "id"))
    for _ in range(2):
        with pytest.raises(InvalidInput, match="does not fit"):
            await target.infer(replace(request, model="narrow"), RequestTrace("test", "id"))
    assert layout.model is target.table.model("echo")


async def test_a_layout_keeps_the_wanted_outputs_and_forgets_none_of_its_faults() -> None:
    target, layout = plane(), Layout()
    request = InferenceRequest("echo", None, {"x": ROW}, "id", outputs=("x",), layout=layout)
    for _ in range(2):
        result = await target.infer(request, RequestTrace("test", "id"))
        assert list(result.outputs) == ["x"]
    other = replace(request, outputs=("y",), layout=Layout())
    for _ in range(2):
        with pytest.raises(InvalidInput, match="'y' is not an output"):
            await target.infer(other, RequestTrace("test", "id"))


# Without a task


def heard_by(target: DataPlane, **request: Any) -> tuple[Ticket, list[Any]]:
    heard: list[Any] = []
    given = InferenceRequest("echo", None, {"x": ROW}, "id", **request)
    ticket = target.start(
        given, RequestTrace("test", "id"), lambda result, error: heard.append((result, error))
    )
    return ticket, heard


async def test_a_result_is_told_and_counted() -> None:
    target = plane()
    ticket, heard = heard_by(target)
    assert (target.in_flight, heard) == (1, [])
    await asyncio.sleep(0.01)
    [(result, error)] = heard
    assert np.array_equal(result.outputs["x"], ROW)
    assert (error, target.in_flight) == (None, 0)
    ticket.cancel()
    assert target.in_flight == 0


@pytest.mark.parametrize("turns", [0, 5])
async def test_a_ticket_withdraws(turns: int) -> None:
    target = plane(FakeGateway(delay_s=5.0))
    ticket, heard = heard_by(target)
    for _ in range(turns):
        await asyncio.sleep(0)
    ticket.cancel()
    ticket.cancel()
    await asyncio.sleep(0.01)
    [queue] = target.queues.values()
    assert (heard, target.in_flight, queue.in_flight, queue.queued_rows) == ([], 0, 0, 0)


async def test_a_deadline_is_told_and_counted() -> None:
    target = plane(FakeGateway(delay_s=5.0))
    _, heard = heard_by(target, timeout_s=0.01)
    await asyncio.sleep(0.1)
    [(result, error)] = heard
    assert result is None
    assert isinstance(error, DeadlineExceeded)
    assert target.in_flight == 0


async def test_what_is_refused_at_once_is_raised_and_not_counted() -> None:
    target = plane()
    target.draining = True
    with pytest.raises(Draining):
        heard_by(target)
    assert target.in_flight == 0


async def test_an_output_that_the_model_did_not_give_is_its_fault() -> None:
    gateway = FakeGateway(lambda _key, _inputs: {"y": ROW})
    target = plane(gateway)
    with pytest.raises(ModelFailed, match="'x'"):
        await infer(target, outputs=("x",))
    assert target.in_flight == 0


async def test_cancelling_a_caller_withdraws_its_request() -> None:
    target = plane(FakeGateway(delay_s=5.0))
    task = asyncio.ensure_future(infer(target))
    await asyncio.sleep(0.01)
    assert target.in_flight == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    [queue] = target.queues.values()
    assert (target.in_flight, queue.in_flight) == (0, 0)
