"""Which texts of a batch are computed together: the ways there are, and which is the fastest."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter

from serve_app.predictors.encoder import Rows

UNPADDED = "unpadded"
WHOLE = "whole"

Way = int | str
"""How many rows are padded together, after sorting by length; `WHOLE`: the batch as it came, padded
to its longest row; `UNPADDED`: without padding."""

GROUPS: tuple[Way, ...] = (8, 4, 16, 2, 32, 1)
"""Numbers of rows that are tried, the likeliest first."""

MAX_POSITIONS = 4096
"""Positions computed at a time without padding, for the sake of memory: 25 MB per activation of
MiniLM's widest layer. With 1,024 a batch of 32 sentences takes 5 % longer."""

_WORDS, _SPREAD, _SHORTEST, _LONGEST = 20, 0.8, 3, 120
_TOKENS_PER_WORD = 1.2
_ROWS = 32
_BUDGET_S = 1.5
_CONTENDER = 1.1


def passes(rows: Rows, way: Way) -> Iterator[list[int]]:
    """Row numbers that are computed together."""
    if way == UNPADDED:
        yield from _filled(rows)
    elif isinstance(way, int):
        by_length = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        for start in range(0, len(rows), way):
            yield by_length[start : start + way]
    else:
        yield list(range(len(rows)))


def synthetic_rows(vocabulary: int, max_tokens: int) -> list[list[int]]:
    """A batch such as language gives: half of the texts have up to 20 words, few are long."""
    rng = random.Random(_ROWS)
    rows = []
    for _ in range(_ROWS):
        words = rng.lognormvariate(math.log(_WORDS), _SPREAD)
        tokens = round(min(_LONGEST, max(_SHORTEST, words)) * _TOKENS_PER_WORD)
        rows.append(rng.choices(range(vocabulary), k=min(tokens, max_tokens)))
    return rows


def fastest(
    ways: Sequence[Way], compute: Callable[[Way], object], clock: Callable[[], float]
) -> Way:
    """Tries ways in turn, the clearly slower ones once, for little more than `_BUDGET_S`.

    Args:
        ways: the likeliest first.
        compute: computes the same batch in one way.
        clock: by which they are compared.
    """
    best: dict[Way, float] = {}
    contenders = list(ways)
    ends = perf_counter() + _BUDGET_S
    while len(contenders) > 1:
        for way in contenders:
            began = clock()
            compute(way)
            best[way] = min(clock() - began, best.get(way, math.inf))
            if perf_counter() >= ends:
                return min(best, key=best.__getitem__)
        limit = _CONTENDER * min(best.values())
        contenders = [way for way in contenders if best[way] <= limit]
    return contenders[0]


def _filled(rows: Rows) -> Iterator[list[int]]:
    """Rows in their order, as many at a time as `MAX_POSITIONS` has room for."""
    taken: list[int] = []
    positions = 0
    for number, row in enumerate(rows):
        if taken and positions + len(row) > MAX_POSITIONS:
            yield taken
            taken, positions = [], 0
        taken.append(number)
        positions += len(row)
    if taken:
        yield taken
