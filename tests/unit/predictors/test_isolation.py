from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.inference import InferenceBatch
from serve_app.domain.tensor import Array
from serve_app.errors import InvalidInput
from serve_app.predictors.isolation import compute_isolated

MEMBERS = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from(["good", "good", "invalid", "fails", "late"])),
    min_size=1,
    max_size=40,
)


def make(members: list[tuple[int, str]]) -> InferenceBatch:
    """Rows carry their member's number; the sign of `mark` says what is wrong with them."""
    rows = tuple(count for count, _ in members)
    numbers = np.repeat(np.arange(len(members)), rows)
    marks = np.array([{"invalid": 1, "fails": 2}.get(kind, 0) for _, kind in members])
    return InferenceBatch(
        {"number": numbers, "mark": marks[numbers]},
        rows,
        tuple(0.0 if kind == "late" else 9.0 for _, kind in members),
        tuple(f"r{number}" for number in range(len(members))),
    )


class Model:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, inputs: Mapping[str, Array], rows: int) -> Mapping[str, Array]:
        self.calls += 1
        assert all(len(array) == rows for array in inputs.values())
        if (inputs["mark"] == 2).any():
            raise RuntimeError("internal")
        if (inputs["mark"] == 1).any():
            raise InvalidInput("this one")
        return {"out": inputs["number"] * 10}


@given(MEMBERS)
def test_exactly_the_guilty_fail_and_the_others_get_their_own_rows(
    members: list[tuple[int, str]],
) -> None:
    model = Model()
    outputs, failures = compute_isolated(make(members), model, lambda: 1.0)
    expected = {"invalid": "invalid_input", "fails": "model_failed", "late": "deadline_exceeded"}
    assert {number: failure.code for number, failure in failures.items()} == {
        number: expected[kind] for number, (_, kind) in enumerate(members) if kind != "good"
    }
    good = [
        number
        for number, (count, kind) in enumerate(members)
        if kind == "good"
        for _ in range(count)
    ]
    assert outputs.get("out", np.array([])).tolist() == [number * 10 for number in good]
    guilty = sum(kind in ("invalid", "fails") for _, kind in members)
    computed = sum(kind != "late" for _, kind in members)
    bound = 1 + 2 * guilty * math.ceil(math.log2(max(2, computed))) if computed else 0
    assert model.calls <= bound


@given(st.integers(1, 30), st.integers(1, 30))
def test_time_that_runs_out_while_a_batch_is_split_is_honoured(size: int, limit: int) -> None:
    """Each member either got an answer, or a failure, never neither and never both."""
    model = Model()
    outputs, failures = compute_isolated(
        make([(1, "fails")] + [(1, "good")] * size),
        model,
        lambda: 10.0 if model.calls > limit else 0,
    )
    done = [value // 10 for value in outputs.get("out", np.array([], int)).tolist()]
    assert sorted([*done, *failures]) == list(range(size + 1))
    assert model.calls <= limit + 1


def test_a_failure_that_needs_two_members_together_leaves_both_right() -> None:
    def too_large(inputs: Mapping[str, Array], rows: int) -> Mapping[str, Array]:
        if rows > 2:
            raise MemoryError
        return {"out": inputs["number"]}

    outputs, failures = compute_isolated(make([(1, "good")] * 8), too_large, lambda: 0.0)
    assert outputs["out"].tolist() == list(range(8))
    assert failures == {}


def test_a_keyboard_interrupt_is_not_swallowed() -> None:
    def interrupted(inputs: Mapping[str, Array], rows: int) -> Mapping[str, Array]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compute_isolated(make([(1, "good")]), interrupted, lambda: 0.0)


def test_members_side_by_side_are_not_copied() -> None:
    seen: list[Array] = []

    def note(inputs: Mapping[str, Array], rows: int) -> Mapping[str, Array]:
        seen.append(inputs["number"])
        if rows > 2:
            raise RuntimeError
        return {"out": inputs["number"]}

    batch = make([(1, "good")] * 4)
    compute_isolated(batch, note, lambda: 0.0)
    assert all(np.shares_memory(part, batch.inputs["number"]) for part in seen)
