from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.domain.inference import Failure, InferenceBatch
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


@settings(deadline=None)  # says nothing about speed
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


@settings(deadline=None)  # says nothing about speed
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


@settings(deadline=None)  # says nothing about speed
@given(MEMBERS, st.integers(1, 5))
def test_slices_change_no_answer(members: list[tuple[int, str]], limit: int) -> None:
    sizes: list[int] = []
    model = Model()

    def note(inputs: Mapping[str, Array], rows: int) -> Mapping[str, Array]:
        sizes.append(rows)
        return model(inputs, rows)

    whole, failures = compute_isolated(make(members), Model(), lambda: 1.0)
    batch = make(members)._replace(slice_rows=limit)
    sliced, failures_sliced = compute_isolated(batch, note, lambda: 1.0)
    assert sliced.get("out", np.array([])).tolist() == whole.get("out", np.array([])).tolist()
    assert {member: failure.code for member, failure in failures_sliced.items()} == {
        member: failure.code for member, failure in failures.items()
    }
    assert max(sizes, default=0) <= limit


def test_members_are_grouped_up_to_the_size_of_a_slice() -> None:
    sizes: list[int] = []

    def note(inputs: Mapping[str, Array], rows: int) -> Mapping[str, Array]:
        sizes.append(rows)
        return {"out": inputs["number"]}

    members = [(count, "good") for count in (1, 2, 1, 9, 1, 3, 4)]
    outputs, failures = compute_isolated(make(members)._replace(slice_rows=4), note, lambda: 0.0)
    assert sizes == [4, 4, 4, 1, 4, 4]
    assert outputs["out"].tolist() == np.repeat(np.arange(7), [1, 2, 1, 9, 1, 3, 4]).tolist()
    assert failures == {}


def test_a_large_member_stops_at_its_deadline_and_harms_no_other() -> None:
    calls: list[int] = []

    def slow(inputs: Mapping[str, Array], rows: int) -> Mapping[str, Array]:
        calls.append(rows)
        return {"out": inputs["number"]}

    batch = make([(2, "good"), (1000, "good"), (2, "good")])._replace(
        slice_rows=10, budgets_s=(60.0, 5.0, 60.0)
    )
    outputs, failures = compute_isolated(batch, slow, lambda: float(len(calls)))
    assert outputs["out"].tolist() == [0, 0, 2, 2]
    assert {member: failure.code for member, failure in failures.items()} == {
        1: "deadline_exceeded"
    }
    assert calls == [2, 10, 10, 10, 10, 2]


def test_a_large_member_ends_with_its_first_slice_that_fails() -> None:
    batch = make([(100, "good")])._replace(slice_rows=10)
    batch.inputs["mark"][35] = 2
    model = Model()
    outputs, failures = compute_isolated(batch, model, lambda: 0.0)
    assert outputs == {}
    assert failures[0].code == "model_failed"
    assert model.calls == 4


@pytest.mark.parametrize(
    ("error", "detail", "field"),
    [
        (
            InvalidInput("number[3] is odd, as context[3] says", "number[3]"),
            "number[23] is odd, as context[3] says",
            "number[23]",
        ),
        (
            InvalidInput("in-1[3][0]: too long", "in-1[3][0]"),
            "in-1[23][0]: too long",
            "in-1[23][0]",
        ),
        (
            InvalidInput("row 3 is odd", "number[3]"),
            "counted from row 20: row 3 is odd",
            "number[23]",
        ),
        (InvalidInput("row 3 is odd", "number"), "counted from row 20: row 3 is odd", "number"),
        (InvalidInput("row 3 is odd"), "counted from row 20: row 3 is odd", None),
    ],
)
def test_rows_named_by_a_slice_are_rows_of_the_request(
    error: InvalidInput, detail: str, field: str | None
) -> None:
    def refuse(inputs: Mapping[str, Array], rows: int) -> Mapping[str, Array]:
        if inputs["mark"].any():
            raise error
        return {"out": inputs["number"]}

    batch = make([(30, "good")])._replace(slice_rows=10)
    batch.inputs["mark"][23] = 1
    _, failures = compute_isolated(batch, refuse, lambda: 0.0)
    assert failures == {0: Failure("invalid_input", detail, field)}
    batch.inputs["mark"][3] = 1
    _, failures = compute_isolated(batch, refuse, lambda: 0.0)
    assert failures == {0: Failure("invalid_input", str(error), error.field)}


def test_the_field_at_fault_is_kept() -> None:
    def refuse(inputs: Mapping[str, Array], rows: int) -> Mapping[str, Array]:
        raise InvalidInput("too long", "number")

    _, failures = compute_isolated(make([(1, "good")] * 2), refuse, lambda: 0.0)
    assert {failure.field for failure in failures.values()} == {"number"}


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
