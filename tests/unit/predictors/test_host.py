from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from serve_app.domain.inference import BatchResult, Failure, InferenceBatch
from serve_app.domain.tensor import DTYPES
from serve_app.errors import NotReady, PredictorError
from serve_app.predictors import compute_thread
from serve_app.predictors.host import PredictorHost
from serve_app.predictors.predictor import Predictor
from tests.unit.predictors.samples import (
    HERE,
    Doubler,
    Gate,
    Paced,
    Returns,
    batch,
    column,
    config,
    context,
    spec,
)

EXAMPLE = {"x": [[1.0, 2.0]]}


@pytest.fixture
def host() -> Iterator[PredictorHost]:
    host = PredictorHost("sample@1")
    yield host
    Gate.opened.set()
    host.close()


def load(host: PredictorHost, name: str, **arguments: Any) -> Predictor:
    host.load(config(f"{HERE}.{name}", **arguments), context(), {})
    predictor = host._predictor
    assert predictor is not None
    return predictor


async def test_computes_in_one_thread_that_is_not_the_loops(host: PredictorHost) -> None:
    load(host, "Doubler")
    result = await host.run(batch(column(1, 2, 3)))
    np.testing.assert_array_equal(result.outputs["y"], [[2, 2], [4, 4], [6, 6]])
    assert result.failures == {}
    assert 0 < result.compute_s < 10
    assert host.describe() == {"device": "cpu", "factor": "2.0"}
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("compute-sample@1") == 1


async def test_members_of_several_rows(host: PredictorHost) -> None:
    load(host, "Doubler")
    result = await host.run(batch(column(1, 2, -3, 4, 5, 6), rows=(2, 2, 2)))
    np.testing.assert_array_equal(result.outputs["y"][:, 0], [2, 4, 10, 12])
    assert set(result.failures) == {1}


async def test_only_the_guilty_fail_and_nothing_internal_leaves(
    host: PredictorHost, caplog: pytest.LogCaptureFixture
) -> None:
    load(host, "Doubler")
    with caplog.at_level(logging.ERROR):
        result = await host.run(batch(column(1, float("nan"), 3, -4, 5)))
    np.testing.assert_array_equal(result.outputs["y"][:, 0], [2, 6, 10])
    assert result.failures[1].code == "invalid_input"
    assert result.failures[1].detail == "x[0] is not a number"  # counted in its own request
    assert result.failures[3].code == "model_failed"
    assert "secret" not in result.failures[3].detail
    (record,) = caplog.records
    assert record.__dict__["request_id"] == "request-3"
    assert record.exc_info is not None
    assert "secret internals" in str(record.exc_info[1])


async def test_a_good_batch_is_computed_once(host: PredictorHost) -> None:
    predictor = load(host, "Doubler")
    assert isinstance(predictor, Doubler)
    await host.run(batch(column(*range(32))))
    assert predictor.calls == [32]


async def test_all_members_fail(host: PredictorHost) -> None:
    load(host, "Doubler")
    result = await host.run(batch(column(-1, -2, -3)))
    assert result.outputs == {}
    assert set(result.failures) == {0, 1, 2}


@pytest.mark.parametrize("error", ["memory", "stop", "exit", "key", "recursion"])
async def test_no_error_of_a_model_ends_the_thread(host: PredictorHost, error: str) -> None:
    load(host, "Raises", error=error)
    for _ in range(2):
        result = await host.run(batch(column(1, -1, 2)))
        np.testing.assert_array_equal(result.outputs["y"][:, 0], [1, 2])
        assert result.failures[1].code == "model_failed"


async def test_a_late_member_is_dropped_before_compute(host: PredictorHost) -> None:
    predictor = load(host, "Doubler")
    assert isinstance(predictor, Doubler)
    late = batch(column(1, 2, 3, 4))._replace(budgets_s=(60.0, 0.0, 60.0, -1.0))
    result = await host.run(late)
    np.testing.assert_array_equal(result.outputs["y"][:, 0], [2, 6])
    assert {member: failure.code for member, failure in result.failures.items()} == {
        1: "deadline_exceeded",
        3: "deadline_exceeded",
    }
    assert predictor.calls == [2]


async def test_budgets_count_from_receipt_not_from_compute(host: PredictorHost) -> None:
    load(host, "Gate")
    first = asyncio.create_task(host.run(batch(column(1))))
    await asyncio.to_thread(Gate.begun.wait, 10)
    waiting = batch(column(2, 3))._replace(budgets_s=(0.05, 60.0))
    second = asyncio.create_task(host.run(waiting))
    await asyncio.sleep(0.1)
    Gate.opened.set()
    assert (await first).failures == {}
    result = await second
    assert result.failures[0].code == "deadline_exceeded"
    np.testing.assert_array_equal(result.outputs["y"][:, 0], [3])


async def test_the_loop_is_free_while_a_model_computes(host: PredictorHost) -> None:
    load(host, "Gate")
    assert host.stuck_for_s() == 0.0
    running = asyncio.create_task(host.run(batch(column(1))))
    await asyncio.to_thread(Gate.begun.wait, 10)
    ticks = 0
    while host.stuck_for_s() < 0.05:
        await asyncio.sleep(0.005)
        ticks += 1
    assert ticks > 1
    assert not running.done()
    Gate.opened.set()
    await running
    await asyncio.to_thread(host.close)
    assert host.stuck_for_s() == 0.0


async def test_a_caller_that_leaves_breaks_nothing(host: PredictorHost) -> None:
    load(host, "Gate")
    begun = asyncio.create_task(host.run(batch(column(1))))
    await asyncio.to_thread(Gate.begun.wait, 10)
    queued = asyncio.create_task(host.run(batch(column(2))))
    await asyncio.sleep(0)
    for task in (begun, queued):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    Gate.opened.set()
    result = await host.run(batch(column(3)))
    np.testing.assert_array_equal(result.outputs["y"], [[3, 3]])


def test_a_caller_whose_loop_is_gone_breaks_nothing(host: PredictorHost) -> None:
    load(host, "Gate")

    async def leave() -> None:
        task = asyncio.create_task(host.run(batch(column(1))))
        await asyncio.to_thread(Gate.begun.wait, 10)
        task.cancel()

    asyncio.run(leave())
    Gate.opened.set()
    result: BatchResult = asyncio.run(host.run(batch(column(2))))
    np.testing.assert_array_equal(result.outputs["y"], [[2, 2]])


async def test_a_large_request_is_computed_in_slices(host: PredictorHost) -> None:
    predictor = load(host, "Doubler")
    assert isinstance(predictor, Doubler)
    large = batch(column(*range(10)), rows=(10,))
    result = await host.run(large._replace(slice_rows=4))
    assert predictor.calls == [4, 4, 2]
    np.testing.assert_array_equal(result.outputs["y"][:, 0], np.arange(10) * 2)
    predictor.calls.clear()
    for limit in (0, 10, 11):
        await host.run(large._replace(slice_rows=limit))
    assert predictor.calls == [10, 10, 10]


async def test_each_slice_starts_the_busy_clock_again(
    host: PredictorHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = load(host, "Paced")
    assert isinstance(predictor, Paced)
    clock = [1000.0]
    monkeypatch.setattr(compute_thread, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    large = batch(column(1, 2, 3), rows=(3,))._replace(slice_rows=1)
    running = asyncio.create_task(host.run(large))
    for _ in range(3):
        assert await asyncio.to_thread(Paced.begun.acquire, True, 10)
        assert host.stuck_for_s() == 0.0
        clock[0] += 50.0
        assert host.stuck_for_s() == 50.0
        Paced.permits.release()
    assert (await running).failures == {}


async def test_inputs_are_read_only(host: PredictorHost) -> None:
    load(host, "InPlace")
    inputs = column(1)
    result = await host.run(batch(inputs))
    assert result.failures[0].code == "model_failed"
    np.testing.assert_array_equal(inputs["x"], [[1, 1]])
    assert inputs["x"].flags.writeable


async def test_close_lets_work_finish_and_refuses_more(host: PredictorHost) -> None:
    predictor = load(host, "Doubler")
    assert isinstance(predictor, Doubler)
    running = asyncio.create_task(host.run(batch(column(1))))
    await asyncio.sleep(0)
    await asyncio.to_thread(host.close)
    assert (await running).failures == {}
    assert predictor.closed
    host.close()
    with pytest.raises(NotReady):
        await host.run(batch(column(1)))


async def test_work_still_queued_at_close_is_not_ready_and_no_fault_of_the_model(
    host: PredictorHost, caplog: pytest.LogCaptureFixture
) -> None:
    load(host, "Gate")
    first = asyncio.create_task(host.run(batch(column(1))))
    await asyncio.to_thread(Gate.begun.wait, 10)
    closing = asyncio.create_task(host._thread.run(host._close_predictor))
    await asyncio.sleep(0)
    queued = asyncio.create_task(host.run(batch(column(2, 3, 4))))
    await asyncio.sleep(0)
    Gate.opened.set()
    await closing
    assert (await first).failures == {}
    result = await queued
    assert result.outputs == {}
    assert result.failures == dict.fromkeys(
        range(3), Failure("not_ready", "sample@1 is not loaded")
    )
    assert "the model failed" not in caplog.text


async def test_close_leaves_a_hung_model_behind(
    host: PredictorHost, caplog: pytest.LogCaptureFixture
) -> None:
    load(host, "Gate")
    running = asyncio.create_task(host.run(batch(column(1))))
    await asyncio.to_thread(Gate.begun.wait, 10)
    started = time.monotonic()
    await asyncio.to_thread(host.close, 0.05)
    assert time.monotonic() - started < 20  # not the 30 s of the gate
    assert "left behind" in caplog.text
    running.cancel()


async def test_run_before_load(host: PredictorHost) -> None:
    assert host.describe() == {}
    with pytest.raises(NotReady, match="sample@1"):
        await host.run(batch(column(1)))


# --- loading and warm-up ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words"),
    [("memory", "MemoryError: no memory"), ("exit", "SystemExit: 3"), ("value", "bad weights")],
)
def test_a_failed_load_is_an_error_and_closes_the_host(error: str, words: str) -> None:
    host = PredictorHost("broken@1")
    with pytest.raises(PredictorError, match=words):
        host.load(config(f"{HERE}.BrokenLoad", error=error), context(), {})
    assert "compute-broken@1" not in [thread.name for thread in threading.enumerate()]


def test_warm_up_runs_the_example(host: PredictorHost) -> None:
    host.load(config(f"{HERE}.Doubler"), context(), EXAMPLE)
    predictor = host._predictor
    assert isinstance(predictor, Doubler)
    assert predictor.calls == [1]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({}, "returned nothing, but declares y"),
        ({"z": np.zeros((1, 2), np.float32)}, "returned z, but declares y"),
        ({"y": np.zeros((1, 2), np.float32), "z": np.zeros(1)}, "returned y, z"),
        (np.zeros((1, 2), np.float32), "returned a ndarray"),
        ({"y": [[1.0, 2.0]]}, "is a list, not a numpy array"),
        ({"y": np.zeros((1, 3), np.float32)}, r"shape \[1, 3\], declared is \[-1, 2\]"),
        ({"y": np.zeros(2, np.float32)}, r"shape \[2\]"),
        ({"y": np.zeros((2, 2), np.float32)}, "2 rows for 1 rows"),
        ({"y": np.zeros((1, 2), np.complex64)}, "dtype complex64, which is no FP32"),
        ({"y": np.array([["a", "b"]], np.object_)}, "dtype object"),
    ],
)
def test_a_model_that_breaks_its_signature_never_gets_ready(
    host: PredictorHost, monkeypatch: pytest.MonkeyPatch, answer: Any, words: str
) -> None:
    monkeypatch.setattr(Returns, "answer", answer)
    with pytest.raises(PredictorError, match=words):
        host.load(config(f"{HERE}.Returns"), context(), EXAMPLE)


async def test_a_signature_broken_later_fails_the_request(
    host: PredictorHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(host, "Returns")
    monkeypatch.setattr(Returns, "answer", {"y": np.zeros((7, 2), np.float32)})
    result = await host.run(batch(column(1, 2)))
    assert {failure.code for failure in result.failures.values()} == {"model_failed"}


@pytest.mark.parametrize(
    ("example", "words"),
    [
        ({"z": [[1.0, 2.0]]}, "warm_up.z: no such input. Declared: x."),
        ({"x": [[1.0, 2.0, 3.0]]}, r"warm_up.x: shape \[1, 3\] does not fit"),
        ({"x": [1.0, 2.0]}, "does not fit"),
        ({"x": []}, "does not fit"),
        ({"x": [[1.0], [2.0, 3.0]]}, "rows of unequal length"),
        ({"x": [["a", "b"]]}, "are no FP32"),
        ({"x": [[-1.0, -1.0]]}, "the warm-up failed: RuntimeError"),
        ({"x": [[float("nan"), 0.0]]}, "the warm-up failed: InvalidInput"),
    ],
)
def test_an_example_that_does_not_fit(
    host: PredictorHost, example: dict[str, Any], words: str
) -> None:
    with pytest.raises(PredictorError, match=words):
        host.load(config(f"{HERE}.Doubler"), context(), example)


def test_an_example_must_name_every_input(host: PredictorHost) -> None:
    inputs = [spec("x", "FP32", -1), spec("z", "FP32", -1)]
    with pytest.raises(PredictorError, match=r"warm_up.z: missing"):
        host.load(config(f"{HERE}.Doubler"), context(inputs), {"x": [1.0]})


# --- dtypes ----------------------------------------------------------------------------------

VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "BYTES": ["grüße", ""],
    **{name: [0, 7] for name in DTYPES if "INT" in name},
    **{name: [0.5, -2] for name in ("FP16", "BF16", "FP32", "FP64")},
}


@pytest.mark.parametrize("datatype", DTYPES)
async def test_every_datatype_passes_warm_up_and_compute(
    host: PredictorHost, datatype: str
) -> None:
    specs = [spec("a", datatype, -1)]
    echo = config("serve_app.predictors.echo.EchoModel")
    host.load(echo, context(specs, [spec("b", datatype, -1)]), {"a": VALUES[datatype]})
    values = [v.encode() if isinstance(v, str) else v for v in VALUES[datatype]]
    result = await host.run(batch({"a": np.array(values, DTYPES[datatype])}))
    assert result.outputs["b"].dtype == DTYPES[datatype]
    assert result.outputs["b"].tolist() == values


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("UINT8", [256]),
        ("UINT8", [-1]),
        ("INT8", [1.5]),
        ("INT64", [2**63]),
        ("UINT64", [2**64]),
        ("BOOL", [1]),
        ("FP32", ["1.0"]),
        ("BYTES", [1]),
        ("BYTES", [["nested"]]),
        ("BYTES", [None]),
    ],
)
def test_example_values_that_are_not_of_the_datatype(
    host: PredictorHost, datatype: str, values: list[Any]
) -> None:
    echo = config("serve_app.predictors.echo.EchoModel")
    declared = context([spec("a", datatype, -1)], [spec("b", datatype, -1)])
    with pytest.raises(PredictorError, match=r"warm_up\.a"):
        host.load(echo, declared, {"a": values})


@pytest.mark.parametrize(
    ("given", "declared"),
    [
        (np.array([1.5], np.float64), "FP32"),
        (np.array([1.5], np.float32), "FP16"),
        (np.array([1.5], np.float32), "BF16"),
        (np.array([1.5], ml_dtypes.bfloat16), "FP32"),
        (np.array([3], np.int64), "INT32"),
        (np.array([True]), "UINT8"),
        (np.array(["text"]), "BYTES"),
        (np.array([b"text"]), "BYTES"),
        (np.array(["text"], np.object_), "BYTES"),
    ],
)
async def test_outputs_are_cast_within_their_kind(
    host: PredictorHost, monkeypatch: pytest.MonkeyPatch, given: Any, declared: str
) -> None:
    monkeypatch.setattr(Returns, "answer", {"y": given})
    outputs = [spec("y", declared, -1)]
    host.load(config(f"{HERE}.Returns"), context(outputs=outputs), EXAMPLE)
    result = await host.run(batch(column(1)))
    assert result.outputs["y"].dtype == DTYPES[declared]
    expected = b"text" if declared == "BYTES" else given[0]
    assert result.outputs["y"][0] == expected


@pytest.mark.parametrize(
    ("given", "declared"),
    [
        (np.array([1.5], np.float32), "INT32"),
        (np.array([1], np.int32), "UINT32"),
        (np.array([1], np.int32), "BOOL"),
        (np.array([1]), "BYTES"),
        (np.array([1, None], np.object_)[:1], "BYTES"),
        (np.array([b"1"], np.object_), "INT32"),
    ],
)
def test_outputs_of_another_kind_are_refused(
    host: PredictorHost, monkeypatch: pytest.MonkeyPatch, given: Any, declared: str
) -> None:
    monkeypatch.setattr(Returns, "answer", {"y": given})
    with pytest.raises(PredictorError, match="output 'y'"):
        host.load(config(f"{HERE}.Returns"), context(outputs=[spec("y", declared, -1)]), EXAMPLE)


# --- models without a batch dimension --------------------------------------------------------


async def test_a_model_that_takes_one_request_at_a_time(
    host: PredictorHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Returns, "answer", {"total": np.ones(1, np.float32)})
    signature = context([spec("x", "FP32", 4, 2)], [spec("total", "FP32", 1)])
    example = {"x": np.zeros((4, 2)).tolist()}
    host.load(config(f"{HERE}.Returns"), signature, example)
    alone = InferenceBatch(column(1, 2, 3, 4), (4,), (60.0,), ("one",))
    result = await host.run(alone)
    np.testing.assert_array_equal(result.outputs["total"], [1])
    whole = await host.run(alone._replace(slice_rows=1))  # its rows belong together
    assert whole.failures == {}
    np.testing.assert_array_equal(whole.outputs["total"], [1])
    late = await host.run(alone._replace(budgets_s=(0.0,)))
    assert late.failures[0].code == "deadline_exceeded"
