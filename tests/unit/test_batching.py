"""Natural batching: what travels together, what is bounded, what one failure costs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.batching import VersionQueue
from serve_app.domain.batching_policy import BatchingPolicy
from serve_app.domain.inference import BatchResult, Failure, InferenceBatch, VersionKey
from serve_app.domain.tensor import Array
from serve_app.errors import (
    DeadlineExceeded,
    InvalidInput,
    ModelFailed,
    NotReady,
    Overloaded,
    ReplicaLost,
    ServeAppError,
)
from serve_app.telemetry.trace import RequestTrace
from tests.unit.submission import outputs_of

KEY = VersionKey("m", "1")


class Gate:
    """A gateway whose calls wait until they are let through."""

    def __init__(self, *, open_at_once: bool = False) -> None:
        self.batches: list[InferenceBatch] = []
        self.cancelled = 0
        self.errors: list[Exception] = []
        self._gate = asyncio.Event()
        if open_at_once:
            self._gate.set()

    def open(self) -> None:
        self._gate.set()

    async def call(self, key: VersionKey, batch: InferenceBatch, timeout_s: float) -> BatchResult:
        self.batches.append(batch)
        try:
            await self._gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.errors:
            raise self.errors.pop(0)
        return BatchResult({"y": batch.inputs["x"] * 2}, {}, 0.001)

    @property
    def rows(self) -> list[tuple[int, ...]]:
        return [batch.rows for batch in self.batches]


def queue(
    gate: object,
    slots: int = 1,
    *,
    idempotent: bool = True,
    policy: Mapping[str, float] | None = None,
    **options: float,
) -> VersionQueue:
    """A queue by fixed numbers; `test_batching_adaptive.py` has the others."""
    settings = BatchingPolicy.model_validate({"adaptive": False, **(policy or {}), **options})
    return VersionQueue(KEY, gate, settings, slots=slots, idempotent=idempotent)  # type: ignore[arg-type]


def submit(
    target: VersionQueue, value: float, rows: int = 1, timeout_s: float = 5.0, signature: object = 0
) -> asyncio.Task[Mapping[str, Array]]:
    inputs = {"x": np.full((rows, 2), value, np.float32)}
    trace = RequestTrace("test", f"id-{value:g}")
    return asyncio.ensure_future(
        outputs_of(
            target,
            inputs,
            rows=rows,
            size=inputs["x"].nbytes,
            deadline=trace.started + timeout_s,
            signature=signature,
            trace=trace,
        )
    )


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_arrivals_of_one_turn_go_together_when_a_slot_is_free() -> None:
    gate = Gate(open_at_once=True)
    target = queue(gate)
    answers = await asyncio.gather(*[submit(target, n) for n in range(5)])
    assert gate.rows == [(1, 1, 1, 1, 1)]
    assert [float(answer["y"][0, 0]) for answer in answers] == [0, 2, 4, 6, 8]


async def test_while_all_slots_are_busy_arrivals_gather() -> None:
    gate = Gate()
    target = queue(gate, slots=2, max_rows=3)
    first = [submit(target, 1)]
    await turn()
    first.append(submit(target, 2))
    await turn()
    waiting = [submit(target, n) for n in range(3, 8)]
    await turn()
    assert gate.rows == [(1,), (1,)]
    assert (target.queued_rows, target.in_flight) == (5, 2)
    gate.open()
    await asyncio.gather(*first, *waiting)
    assert gate.rows == [(1,), (1,), (1, 1, 1), (1, 1)]
    assert (target.queued_rows, target._room.bytes, target.in_flight) == (0, 0, 0)


async def test_a_request_larger_than_a_batch_goes_alone() -> None:
    gate = Gate(open_at_once=True)
    target = queue(gate, max_rows=4)
    await asyncio.gather(submit(target, 1, rows=2), submit(target, 2, rows=9), submit(target, 3))
    assert gate.rows == [(2,), (9,), (1,)]


async def test_signatures_never_mix_and_the_oldest_goes_first() -> None:
    gate = Gate()
    target = queue(gate)
    tasks = [submit(target, 0)]
    await turn()
    tasks += [submit(target, 1, signature="b"), submit(target, 2, signature="c")]
    tasks += [submit(target, 3, signature="b")]
    await turn()
    gate.open()
    await asyncio.gather(*tasks)
    values = [batch.inputs["x"][:, 0].tolist() for batch in gate.batches]
    assert values == [[0], [1, 3], [2]]


async def test_the_optional_wait_fills_the_batch() -> None:
    gate = Gate(open_at_once=True)
    target = queue(gate, max_wait_ms=30, max_rows=3)
    early = submit(target, 1)
    await asyncio.sleep(0.005)
    late = submit(target, 2)
    await asyncio.gather(early, late)
    assert gate.rows == [(1, 1)]
    await asyncio.gather(*[submit(target, n) for n in range(3)])  # full: no wait needed
    assert gate.rows[1:] == [(1, 1, 1)]


@pytest.mark.parametrize("bound", [{"max_queue_rows": 2}, {"max_queue_bytes": 16}])
async def test_a_full_queue_refuses(bound: dict[str, float]) -> None:
    gate = Gate()
    target = queue(gate, policy=bound)
    tasks = [submit(target, 0)]
    await turn()
    tasks += [submit(target, 1), submit(target, 2)]
    await turn()
    with pytest.raises(Overloaded) as refusal:
        await submit(target, 3)
    assert refusal.value.retry_after_s
    gate.open()
    await asyncio.gather(*tasks)


async def test_a_deadline_in_the_queue_is_never_computed() -> None:
    gate = Gate()
    target = queue(gate)
    first = submit(target, 1)
    await turn()
    with pytest.raises(DeadlineExceeded):
        await submit(target, 2, timeout_s=0.01)
    gate.open()
    await first
    await turn()
    assert gate.rows == [(1,)]
    assert target.queued_rows == 0


async def test_a_deadline_in_flight_cancels_a_batch_that_nobody_waits_for() -> None:
    gate = Gate()
    target = queue(gate)
    with pytest.raises(DeadlineExceeded):
        await submit(target, 1, timeout_s=0.01)
    await turn()
    assert (gate.cancelled, target.in_flight) == (1, 0)


async def test_one_cancelled_member_leaves_the_others_alone() -> None:
    gate = Gate()
    target = queue(gate)
    gone, stays = submit(target, 1), submit(target, 2)
    await turn()
    gone.cancel()
    await turn()
    gate.open()
    assert float((await stays)["y"][0, 0]) == 4
    assert gate.cancelled == 0
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_cancelling_every_member_cancels_the_call() -> None:
    gate = Gate()
    target = queue(gate)
    tasks = [submit(target, 1), submit(target, 2)]
    await turn()
    for task in tasks:
        task.cancel()
    await turn()
    assert (gate.cancelled, target.in_flight) == (1, 0)


class Failing:
    """Fails members by index: what the replica says when single rows are at fault."""

    def __init__(self, failures: dict[int, Failure]) -> None:
        self.failures = failures

    async def call(self, key: VersionKey, batch: InferenceBatch, timeout_s: float) -> BatchResult:
        starts = np.cumsum([0, *batch.rows])
        keep = [i for i in range(len(batch.rows)) if i not in self.failures]
        rows = [batch.inputs["x"][starts[i] : starts[i + 1]] for i in keep]
        return BatchResult({"y": np.concatenate(rows)}, self.failures, 0.0)


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=2, max_size=8),
    guilty=st.sets(st.integers(0, 7), min_size=1),
)
async def test_a_failing_member_fails_alone(sizes: list[int], guilty: set[int]) -> None:
    failures = {i: Failure("invalid_input", f"row {i}") for i in guilty if i < len(sizes)}
    if len(failures) == len(sizes):
        failures.popitem()
    target = queue(Failing(failures), max_rows=1000)
    tasks = [submit(target, n, rows=rows) for n, rows in enumerate(sizes)]
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    for n, answer in enumerate(answers):
        if n in failures:
            assert isinstance(answer, InvalidInput)
            assert str(answer) == f"row {n}"
        else:
            assert not isinstance(answer, BaseException)
            assert answer["y"].tolist() == [[n, n]] * sizes[n]


@pytest.mark.parametrize(
    ("code", "kind"),
    [("invalid_input", InvalidInput), ("model_failed", ModelFailed), ("made_up", ModelFailed)],
)
async def test_failure_codes_become_errors(code: str, kind: type[ServeAppError]) -> None:
    target = queue(Failing({0: Failure(code, "why")}))
    bad, good = submit(target, 1), submit(target, 2)
    await good
    with pytest.raises(kind, match="why"):
        await bad


async def test_a_lost_replica_is_retried_once_member_by_member() -> None:
    gate = Gate(open_at_once=True)
    gate.errors = [ReplicaLost("gone")]
    target = queue(gate)
    answers = await asyncio.gather(submit(target, 1), submit(target, 2))
    assert [float(answer["y"][0, 0]) for answer in answers] == [2, 4]
    assert gate.rows == [(1, 1), (1,), (1,)]


async def test_a_second_loss_is_final_for_that_member_only() -> None:
    gate = Gate(open_at_once=True)
    gate.errors = [ReplicaLost("gone"), ReplicaLost("gone again")]
    target = queue(gate)
    first, second = submit(target, 1), submit(target, 2)
    with pytest.raises(ReplicaLost, match="gone again"):
        await first
    assert float((await second)["y"][0, 0]) == 4


async def test_a_model_that_is_not_idempotent_is_not_retried() -> None:
    gate = Gate(open_at_once=True)
    gate.errors = [ReplicaLost("gone")]
    target = queue(gate, idempotent=False)
    with pytest.raises(ReplicaLost):
        await submit(target, 1)
    assert len(gate.batches) == 1


async def test_every_member_of_a_failed_batch_gets_an_error_of_its_own() -> None:
    gate = Gate(open_at_once=True)
    gate.errors = [Overloaded("busy")]
    target = queue(gate)
    errors = await asyncio.gather(submit(target, 1), submit(target, 2), return_exceptions=True)
    assert [type(error) for error in errors] == [Overloaded, Overloaded]
    assert errors[0] is not errors[1]


async def test_an_unforeseen_error_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(open_at_once=True)
    gate.errors = [ValueError("secret detail")]
    target = queue(gate)
    with pytest.raises(ServeAppError) as caught:
        await submit(target, 1)
    assert "secret" not in str(caught.value)
    assert "secret detail" in caplog.text
    assert float((await submit(target, 2))["y"][0, 0]) == 4


async def test_more_slots_release_what_waits() -> None:
    gate = Gate()
    target = queue(gate, slots=1, max_rows=1)
    tasks = [submit(target, n) for n in range(3)]
    await turn()
    assert target.in_flight == 1
    target.follow(BatchingPolicy(adaptive=False, max_rows=1), 3)
    await turn()
    assert target.in_flight == 3
    gate.open()
    await asyncio.gather(*tasks)


async def test_closing_fails_what_waits_and_finishes_what_flies() -> None:
    gate = Gate()
    target = queue(gate)
    flies = submit(target, 1)
    await turn()
    waits = submit(target, 2)
    await turn()
    target.close(NotReady("removed"))
    with pytest.raises(NotReady):
        await waits
    gate.open()
    assert float((await flies)["y"][0, 0]) == 2
    assert target.queued_rows == 0


async def test_budgets_shrink_with_the_time_spent_waiting() -> None:
    gate = Gate()
    target = queue(gate)
    first = submit(target, 1)
    await turn()
    second = submit(target, 2, timeout_s=1.0)
    await asyncio.sleep(0.05)
    gate.open()
    await asyncio.gather(first, second)
    (budget,) = gate.batches[1].budgets_s
    assert 0 < budget < 0.96
