"""Whether two answers to the same inputs agree, by the rule of a release; and if not, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve_app.domain.release import Compare
from serve_app.domain.tensor import Array

MAX_ELEMENTS = 64 * 1024
"""Of one output. A larger one is compared at evenly spaced rows, and within rows that are so long
at evenly spaced places: this runs between requests, so it has to be short."""

_SHOWN = 4
_LONGEST_ELEMENT = 24

_Floats = NDArray[np.float64]


def differences(
    compare: Compare, primary: Mapping[str, Array], shadow: Mapping[str, Array]
) -> dict[str, str]:
    """What differs between two answers: output -> both in words. Empty: they agree.

    Elements of BYTES must be equal, whatever the rule.

    Args:
        compare: the rule.
        primary: outputs that the client got.
        shadow: outputs of the version that was asked as well.
    """
    found = {}
    for name in primary if compare.output is None else (compare.output,):
        one, other = primary.get(name), shadow.get(name)
        if one is None or other is None:
            found[name] = "only one of the two answers has it"
        elif one.shape != other.shape:
            found[name] = f"shape {list(one.shape)} against {list(other.shape)}"
        elif one.size and (text := _difference(compare, one, other)):
            found[name] = text
    return found


def predictions(output: Array, rows: int) -> tuple[int, ...]:
    """The place of the largest value in each row; empty if it has no numbers or no such rows."""
    if output.dtype.hasobject or not output.size or output.size % rows:
        return ()
    return tuple(output.reshape(rows, -1).argmax(axis=1).tolist())


def _difference(compare: Compare, one: Array, other: Array) -> str:
    """The first row that differs."""
    rows, places = _kept(one.shape)
    width = one.size // (one.shape[0] if one.ndim else 1)
    first = one.reshape(-1, width)[rows][:, places]
    second = other.reshape(-1, width)[rows][:, places]
    if first.dtype.hasobject or second.dtype.hasobject:
        differing = (first != second).any(axis=1)
    else:
        differing = ~_agreeing(compare, first.astype(np.float64), second.astype(np.float64))
    if not differing.any():
        return ""
    index = int(differing.argmax())
    if compare.kind == "top_k" and not first.dtype.hasobject:
        top = [_largest(each[index : index + 1], compare.k)[0] for each in (first, second)]
        texts = [_words(places[each]) for each in top]
    else:
        texts = [_words(each[index]) for each in (first, second)]
    return f"row {rows[index]}: {texts[0]} against {texts[1]}"


def _kept(shape: tuple[int, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which rows are looked at, and which places in each."""
    rows = shape[0] if shape else 1
    width = int(np.prod(shape[1:], dtype=np.int64))
    places = min(width, MAX_ELEMENTS)
    return _spaced(rows, min(rows, max(1, MAX_ELEMENTS // places))), _spaced(width, places)


def _spaced(count: int, kept: int) -> NDArray[np.intp]:
    """So many of the numbers from 0 to `count`, evenly spaced."""
    return np.arange(kept) * count // kept


def _agreeing(compare: Compare, first: _Floats, second: _Floats) -> NDArray[np.bool_]:
    """For each row whether the two agree."""
    if compare.kind == "tolerance":
        close = np.isclose(second, first, rtol=compare.rtol, atol=compare.atol, equal_nan=True)
        return np.asarray(close.all(axis=1))
    if compare.kind == "top_k":
        # Of values that are equal any may be among the largest.
        least = np.take_along_axis(first, _largest(first, compare.k), axis=1).min(axis=1)
        picked = np.take_along_axis(first, _largest(second, compare.k), axis=1)
        return np.asarray((picked >= least[:, None]).all(axis=1))
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        similarity = (first * second).sum(axis=1) / lengths
    # A row of zeros has no direction: it is like another one only.
    equal = (first == second).all(axis=1)
    return np.asarray(equal | (similarity >= compare.min_similarity))


def _largest(values: Any, k: int) -> NDArray[np.intp]:
    """The places of the k largest values of each row, in any order."""
    k = min(k, values.shape[1])
    if k == 1:
        return np.asarray(values.argmax(axis=1)[:, None])
    return np.asarray(np.argpartition(values, -k, axis=1)[:, -k:])


def _words(values: Array) -> str:
    """The first few values of a row."""
    shown = [
        f"{value:.6g}" if isinstance(value, float) else str(value)[:_LONGEST_ELEMENT]
        for value in values[:_SHOWN].tolist()
    ]
    return f"[{', '.join(shown)}{', …' if len(values) > _SHOWN else ''}]"
