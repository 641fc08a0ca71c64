"""What every Gateway must do: the cases, for whichever implementation a subclass serves them with.

A subclass of `GatewayContract`, or of `ReplicaContract` if real replicas compute, gives a fixture
`served`. It serves `MODELS`, each as version 1, with a `JournalledEcho`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve_app.config.model import PredictorConfig
from serve_app.domain.bytes_tensor import bytes_array
from serve_app.domain.gateway import Gateway
from serve_app.domain.inference import BatchResult, InferenceBatch, VersionKey
from serve_app.domain.tensor import BYTES, DTYPES, Array, TensorSpec
from serve_app.errors import DeadlineExceeded, NotReady
from serve_app.predictors.echo import EchoModel

HERE = "tests.contract.gateway_contract"
FAIL_ON = 13
REJECT_ON = 14
SLOW_S = 0.25


@dataclass(frozen=True)
class EchoSettings:
    """One model of the contract: what it takes and gives back, and its predictor's arguments."""

    inputs: tuple[TensorSpec, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def predictor(self, journal: Path) -> PredictorConfig:
        return PredictorConfig.model_validate(
            {"_target_": f"{HERE}.JournalledEcho", "journal": str(journal), **self.arguments}
        )


def _matrix(name: str, datatype: str) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=(-1, -1))


MODELS = {
    "all-types": EchoSettings(tuple(_matrix(f"x-{each}", each) for each in DTYPES)),
    "plain": EchoSettings(
        (_matrix("x", "FP32"),), {"fail_on": float(FAIL_ON), "reject_on": float(REJECT_ON)}
    ),
    "slow": EchoSettings((_matrix("x", "INT64"),), {"delay_s": SLOW_S}),
}


class JournalledEcho(EchoModel):
    """Notes each computation as one byte at the end of a file, so that any process can count."""

    def __init__(self, journal: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._journal = journal

    def predict(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        file = os.open(self._journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, b"1")
        os.close(file)
        return super().predict(inputs)


@dataclass(frozen=True)
class Served:
    """The models behind one Gateway."""

    gateway: Gateway
    transport: str
    """What results say of the way they took."""
    journal: Path
    """Where the predictors of the model `slow` count."""

    async def call(self, model: str, batch: InferenceBatch, timeout_s: float = 20.0) -> BatchResult:
        return await self.gateway.call(VersionKey(model, "1"), batch, timeout_s)

    def computed(self) -> int:
        """How often the model `slow` has computed."""
        return self.journal.stat().st_size if self.journal.exists() else 0


def batch_of(
    inputs: Mapping[str, Array],
    rows: Sequence[int] | None = None,
    budgets_s: Sequence[float] | None = None,
) -> InferenceBatch:
    """A batch of one-row members with ample time, unless told otherwise."""
    if rows is None:
        rows = [1] * len(next(iter(inputs.values())))
    budgets_s = budgets_s or [60.0] * len(rows)
    names = tuple(f"request-{number}" for number in range(len(rows)))
    return InferenceBatch(inputs, tuple(rows), tuple(budgets_s), names)


def numbers(*values: float) -> dict[str, Array]:
    return {"x": np.array(values, np.float32).reshape(-1, 1)}


def whole(*values: int) -> dict[str, Array]:
    return {"x": np.array(values, np.int64).reshape(-1, 1)}


def sample(datatype: str, rows: int, columns: int) -> Array:
    """A matrix of that type, every element another one as far as the type allows."""
    count = rows * columns
    if datatype == BYTES:
        elements = [b"", b"\x00\xff", "Zürich".encode(), *[b"x" * n for n in range(count)]]
        return bytes_array(elements[:count], (rows, columns))
    return (np.arange(count) % 120).reshape(rows, columns).astype(DTYPES[datatype])


def assert_same(result: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    assert list(result) == list(expected)
    for name, array in expected.items():
        assert result[name].dtype == array.dtype
        np.testing.assert_array_equal(result[name], array, strict=True)


class GatewayContract:
    """What comes back is what was sent, for the one who sent it."""

    @pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 5), (64, 7), (2, 0)])
    async def test_every_datatype_comes_back_as_it_went(
        self, served: Served, rows: int, columns: int
    ) -> None:
        inputs = {f"x-{each}": sample(each, rows, columns) for each in DTYPES}
        result = await served.call("all-types", batch_of(inputs))
        assert not result.failures
        assert_same(result.outputs, inputs)

    async def test_a_batch_of_20_megabytes(self, served: Served) -> None:
        inputs = {"x": np.arange(5_000_000, dtype=np.float32).reshape(50, -1) + 100}
        result = await served.call("plain", batch_of(inputs))
        assert_same(result.outputs, inputs)

    async def test_a_batch_that_is_not_contiguous(self, served: Served) -> None:
        matrix = np.arange(400 * 300, dtype=np.float32).reshape(400, 300).T + 100
        for inputs in ({"x": matrix}, {"x": matrix[::2, ::3]}):
            assert_same((await served.call("plain", batch_of(inputs))).outputs, inputs)

    async def test_calls_at_once_come_back_to_their_own_callers(self, served: Served) -> None:
        sizes = [1, 3, 2000, 1, 40_000, 5, 300_000, 1]

        async def one(number: int) -> None:
            inputs = {"x": np.full((1, sizes[number % len(sizes)]), 100 + number, np.float32)}
            assert_same((await served.call("plain", batch_of(inputs))).outputs, inputs)

        await asyncio.gather(*[one(number) for number in range(64)])

    async def test_one_after_the_other(self, served: Served) -> None:
        for value in range(100, 140):
            inputs = numbers(value, value + 0.5)
            assert_same((await served.call("plain", batch_of(inputs))).outputs, inputs)


class ReplicaContract(GatewayContract):
    """What a Gateway to real replicas must do besides."""

    async def test_the_result_says_how_it_came_about(self, served: Served) -> None:
        result = await served.call("slow", batch_of(whole(1)))
        assert result.transport == served.transport
        assert SLOW_S <= result.compute_s < 10 * SLOW_S

    async def test_only_the_guilty_members_fail(self, served: Served) -> None:
        result = await served.call("plain", batch_of(numbers(1, FAIL_ON, 2, REJECT_ON, 3)))
        assert_same(result.outputs, numbers(1, 2, 3))
        assert {member: each.code for member, each in result.failures.items()} == {
            1: "model_failed",
            3: "invalid_input",
        }
        assert result.failures[3].field == "inputs"
        assert result.failures[3].detail == "an echo met the value that it rejects"
        assert result.failures[1].field is None

    async def test_members_of_several_rows_fail_as_a_whole(self, served: Served) -> None:
        inputs = numbers(1, 2, 3, REJECT_ON, 5, 6)
        result = await served.call("plain", batch_of(inputs, rows=(2, 3, 1)))
        assert_same(result.outputs, numbers(1, 2, 6))
        assert set(result.failures) == {1}

    async def test_when_all_members_fail_there_are_no_outputs(self, served: Served) -> None:
        result = await served.call("plain", batch_of(numbers(FAIL_ON, REJECT_ON)))
        assert result.outputs == {}
        assert set(result.failures) == {0, 1}

    async def test_a_late_member_fails_alone(self, served: Served) -> None:
        late = batch_of(numbers(1, 2, 3), budgets_s=(60.0, -1.0, 60.0))
        result = await served.call("plain", late)
        assert_same(result.outputs, numbers(1, 3))
        assert result.failures[1].code == "deadline_exceeded"

    async def test_a_budget_runs_while_the_batch_waits(self, served: Served) -> None:
        before = served.computed()
        first = asyncio.create_task(served.call("slow", batch_of(whole(1))))
        await self.begun(served, before + 1)
        waiting = batch_of(whole(2, 3), budgets_s=(SLOW_S / 5, 60.0))
        second = await served.call("slow", waiting)
        assert_same(second.outputs, whole(3))
        assert second.failures[0].code == "deadline_exceeded"
        assert_same((await first).outputs, whole(1))

    async def test_a_timeout_is_met(self, served: Served) -> None:
        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await served.call("slow", batch_of(whole(1)), timeout_s=SLOW_S / 5)
        assert time.monotonic() - begun < 0.8 * SLOW_S
        # What was given up stands in nobody's way.
        assert_same((await served.call("slow", batch_of(whole(2)))).outputs, whole(2))

    @pytest.mark.parametrize("how", ["cancelled", "timed out"])
    async def test_a_batch_that_nobody_waits_for_is_not_computed(
        self, served: Served, how: str
    ) -> None:
        before = served.computed()
        first = asyncio.create_task(served.call("slow", batch_of(whole(1))))
        await self.begun(served, before + 1)
        timeout_s = SLOW_S / 5 if how == "timed out" else 20.0
        given_up = [
            asyncio.create_task(served.call("slow", batch_of(whole(2)), timeout_s))
            for _ in range(3)
        ]
        last = asyncio.create_task(served.call("slow", batch_of(whole(3))))
        await asyncio.sleep(SLOW_S / 4)
        if how == "cancelled":
            for each in given_up:
                each.cancel()
        outcomes = await asyncio.gather(*given_up, return_exceptions=True)
        kind = DeadlineExceeded if how == "timed out" else asyncio.CancelledError
        assert {type(outcome) for outcome in outcomes} == {kind}
        assert_same((await first).outputs, whole(1))
        assert_same((await last).outputs, whole(3))
        assert served.computed() == before + 2

    async def test_a_caller_that_goes_while_its_batch_is_computed_hurts_nobody(
        self, served: Served
    ) -> None:
        before = served.computed()
        first = asyncio.create_task(served.call("slow", batch_of(whole(1))))
        await self.begun(served, before + 1)
        second = asyncio.create_task(served.call("slow", batch_of(whole(2))))
        first.cancel()
        assert_same((await second).outputs, whole(2))

    async def test_a_version_that_is_served_is_awake(self, served: Served) -> None:
        before = served.computed()
        async with asyncio.timeout(5.0):
            await served.gateway.wake(VersionKey("slow", "1"))
        assert served.computed() == before

    async def test_a_version_that_nobody_serves_cannot_be_woken(self, served: Served) -> None:
        with pytest.raises(NotReady):
            await served.gateway.wake(VersionKey("nobody", "1"))

    async def test_a_version_that_nobody_serves_is_not_ready(self, served: Served) -> None:
        with pytest.raises(NotReady):
            await served.call("no-such-model", batch_of(numbers(1)), timeout_s=1.0)

    async def begun(self, served: Served, computations: int) -> None:
        """Waits until the model `slow` works on the computation of that number."""
        async with asyncio.timeout(10):
            while True:
                if served.computed() >= computations:
                    return
                await asyncio.sleep(0.005)
