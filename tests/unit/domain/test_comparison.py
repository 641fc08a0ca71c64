"""When two answers agree, by each rule, and what is said when they do not."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serve_app.domain import comparison
from serve_app.domain.bytes_tensor import bytes_array
from serve_app.domain.comparison import differences, predictions
from serve_app.domain.release import Compare
from serve_app.domain.tensor import Array

LOGITS: Array = np.array([[1.0, 5.0, 3.0], [9.0, 2.0, 4.0]], np.float32)


def differ(compare: Compare, primary: Any, shadow: Any) -> str:
    return differences(compare, {"y": np.asarray(primary)}, {"y": np.asarray(shadow)}).get("y", "")


@given(
    arrays.arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_, np.float16]),
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
    ),
    st.sampled_from(["tolerance", "top_k"]),
)
def test_an_answer_agrees_with_itself(array: Array, kind: Any) -> None:
    if kind == "tolerance" or not np.isnan(array.astype(np.float64)).any():
        assert differ(Compare(kind=kind, k=2), array, array.copy()) == ""


def test_tolerance() -> None:
    compare = Compare(rtol=0.01, atol=0.0)
    assert differ(compare, LOGITS, LOGITS * np.float32(1.009)) == ""
    assert differ(compare, LOGITS, LOGITS * np.float32(1.02)).startswith("row 0: [1, 5, 3] against")
    other = LOGITS.copy()
    other[1, 2] = -4.0
    assert differ(compare, LOGITS, other) == "row 1: [9, 2, 4] against [9, 2, -4]"
    assert differ(Compare(), [[np.nan]], [[np.nan]]) == ""
    assert differ(Compare(), [[np.nan]], [[1.0]]) == "row 0: [nan] against [1]"
    half = LOGITS.astype(ml_dtypes.bfloat16)
    assert differ(Compare(rtol=0.1), half, half) == ""


@pytest.mark.parametrize(
    ("k", "shadow", "text"),
    [
        (1, [[0.0, 7.0, 1.0], [3.0, 1.0, 2.0]], ""),
        (1, [[0.0, 1.0, 7.0], [3.0, 1.0, 2.0]], "row 0: [1] against [2]"),
        (2, [[0.0, 6.0, 7.0], [3.0, 1.0, 2.0]], ""),
        (3, [[9.0, 6.0, 7.0], [1.0, 2.0, 3.0]], ""),
        (9, [[9.0, 6.0, 7.0], [1.0, 2.0, 3.0]], ""),
    ],
)
def test_the_k_largest_in_any_order(k: int, shadow: Any, text: str) -> None:
    assert differ(Compare(kind="top_k", k=k), LOGITS, shadow) == text


def test_among_equal_values_any_may_be_the_largest() -> None:
    tied = [[1.0, 1.0, 0.0]]
    compare = Compare(kind="top_k", k=1)
    assert differ(compare, tied, [[0.0, 2.0, 1.0]]) == ""
    assert differ(compare, tied, [[0.0, 1.0, 2.0]]) != ""


def test_the_angle_of_each_row() -> None:
    compare = Compare(kind="cosine", min_similarity=0.99)
    assert differ(compare, LOGITS, 3.0 * LOGITS) == ""
    turned = LOGITS.copy()
    turned[1] = turned[1, ::-1]
    assert differ(compare, LOGITS, turned).startswith("row 1: [9, 2, 4] against [4, 2, 9]")
    zeros = np.zeros((1, 3), np.float32)
    assert differ(compare, zeros, zeros) == ""
    assert differ(compare, zeros, LOGITS[:1]) != ""


def test_texts_must_be_equal() -> None:
    one, other = bytes_array([b"a", b"b"], (2,)), bytes_array([b"a", b"c" * 90], (2,))
    for kind in ("tolerance", "top_k", "cosine"):
        compare = Compare.model_validate({"kind": kind})
        assert differ(compare, one, one) == ""
        text = differ(compare, one, other)
        assert text.startswith("row 1: [b'b'] against [b'ccc")
        assert len(text) < 60


def test_shapes_and_outputs_that_are_not_there() -> None:
    assert differ(Compare(), LOGITS, LOGITS[:1]) == "shape [2, 3] against [1, 3]"
    found = differences(Compare(), {"y": LOGITS, "z": LOGITS}, {"y": LOGITS})
    assert found == {"z": "only one of the two answers has it"}
    assert differences(Compare(output="y"), {"y": LOGITS, "z": LOGITS}, {"y": LOGITS}) == {}


def test_only_the_named_output_counts() -> None:
    one, other = {"y": LOGITS, "z": LOGITS}, {"y": LOGITS, "z": -LOGITS}
    assert differences(Compare(output="y"), one, other) == {}
    assert list(differences(Compare(), one, other)) == ["z"]


@pytest.mark.parametrize("shape", [(1000, 3), (2, 500), (500,), (5000, 1)])
def test_of_large_outputs_a_part_is_compared(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "MAX_ELEMENTS", 100)
    seen: list[int] = []
    agreeing = comparison._agreeing

    def noted(compare: Compare, first: Any, second: Any) -> Any:
        seen.append(first.size)
        return agreeing(compare, first, second)

    monkeypatch.setattr(comparison, "_agreeing", noted)
    one = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    assert differ(Compare(), one, one) == ""
    assert differ(Compare(), one, one + 100) != ""
    assert all(20 <= size <= 100 for size in seen)


def test_a_row_is_named_by_its_place_in_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "MAX_ELEMENTS", 10)
    one = np.zeros((1000, 1))
    other = one.copy()
    other[700:] = 1.0
    assert differ(Compare(), one, other) == "row 700: [0] against [1]"


def test_predictions() -> None:
    assert predictions(LOGITS, 2) == (1, 0)
    assert predictions(np.array([1.0, 3.0, 2.0]), 1) == (1,)
    assert predictions(np.array([5, 6]), 2) == (0, 0)
    assert predictions(bytes_array([b"a"], (1,)), 1) == ()
    assert predictions(LOGITS, 4) == ()
    assert predictions(np.zeros((0, 3)), 1) == ()
