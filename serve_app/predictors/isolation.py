"""Failures stay with their own request: a batch that fails is split until only guilty ones fail."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

import numpy as np

from serve_app.domain.inference import Failure, InferenceBatch
from serve_app.domain.tensor import Array
from serve_app.domain.traceparent import trace_id
from serve_app.errors import DeadlineExceeded, InvalidInput, ModelFailed

logger = logging.getLogger(__name__)

Compute = Callable[[Mapping[str, Array], int], Mapping[str, Array]]
"""Computes inputs of so many rows."""

_LATE = "the deadline passed before the model could compute"
_LATE_INSIDE = "the deadline passed before the model had computed all rows"
_INDEXED = re.compile(r"([^\[\]]+)\[(\d+)\]")
"""How a field names a row: ``text[3]``."""


class _OutOfTime(Exception):
    """No time left for the next slice; not DeadlineExceeded, which model code might raise."""


def compute_isolated(
    batch: InferenceBatch, compute: Compute, elapsed_s: Callable[[], float]
) -> tuple[dict[str, Array], dict[int, Failure]]:
    """Computes a batch; members that are late or at fault fail alone.

    A failing batch is halved again and again, so that g guilty members among n cost about
    g * log2(n) more computations. Before each computation, members without time left are dropped.

    No computation has more than `batch.slice_rows` rows (0: no limit), so that one large request
    cannot keep the model busy past its own deadline: members are grouped up to that size, and a
    member that is larger by itself is computed in slices.

    Args:
        batch: the members and their inputs.
        compute: the model, with its outputs checked.
        elapsed_s: time since the batch was received; members' budgets count from there.

    Returns:
        The outputs of the members that succeeded, in order (empty if none did), and the failures.
    """
    failures: dict[int, Failure] = {}
    parts: list[Mapping[str, Array]] = []
    pending = _groups(batch)
    while pending:
        members = _in_time(batch, pending.pop(), elapsed_s(), failures)
        if not members:
            continue
        outputs, error = _attempt(batch, members, compute, elapsed_s)
        if error is None:
            parts.append(outputs)
        elif len(members) == 1:
            failures[members[0]] = _failure(error, batch, members[0])
        else:
            middle = len(members) // 2
            pending += members[middle:], members[:middle]  # the first half is taken next
        del error  # its traceback holds the tensors of the failed attempt
    return _join(parts), failures


def _groups(batch: InferenceBatch) -> list[Sequence[int]]:
    """Neighbouring members that are computed together; the last group is taken first."""
    limit = batch.slice_rows
    if not limit or sum(batch.rows) <= limit:
        return [range(len(batch.rows))]
    groups: list[Sequence[int]] = []
    first = total = 0
    for member, rows in enumerate(batch.rows):
        if member > first and total + rows > limit:
            groups.append(range(first, member))
            first, total = member, 0
        total += rows
    groups.append(range(first, len(batch.rows)))
    return groups[::-1]


def _in_time(
    batch: InferenceBatch, members: Sequence[int], elapsed_s: float, failures: dict[int, Failure]
) -> Sequence[int]:
    """Drops members whose budget has passed."""
    budgets = batch.budgets_s
    late = [member for member in members if budgets[member] <= elapsed_s]
    if not late:
        return members
    for member in late:
        failures[member] = Failure(DeadlineExceeded.code, _LATE)
    return [member for member in members if budgets[member] > elapsed_s]


def _attempt(
    batch: InferenceBatch,
    members: Sequence[int],
    compute: Compute,
    elapsed_s: Callable[[], float],
) -> tuple[Mapping[str, Array], BaseException | None]:
    """Computes some members together; returns the error instead of raising it.

    The caller goes on outside of the `except` clause: a halved batch may fit into memory where
    the whole did not, once the frames of the failure are gone.
    """
    try:
        rows = sum(batch.rows[member] for member in members)
        inputs = _take(batch, members)
        if 0 < batch.slice_rows < rows:  # only a member alone is as large as that
            budget_s = batch.budgets_s[members[0]]
            return _sliced(inputs, rows, batch.slice_rows, compute, lambda: budget_s - elapsed_s())
        return compute(inputs, rows), None
    except (Exception, SystemExit) as exc:  # model code must not be able to end the thread
        return {}, exc


def _sliced(
    inputs: Mapping[str, Array],
    rows: int,
    limit: int,
    compute: Compute,
    left_s: Callable[[], float],
) -> tuple[Mapping[str, Array], BaseException | None]:
    """Computes the rows of one member in slices, as long as it has time left.

    The first slice that fails ends it: the member has failed, whatever the others would give.
    """
    parts: list[Mapping[str, Array]] = []
    for start in range(0, rows, limit):
        if left_s() <= 0:
            return {}, _OutOfTime()
        stop = min(start + limit, rows)
        part = {name: array[start:stop] for name, array in inputs.items()}
        try:
            parts.append(compute(part, stop - start))
        except InvalidInput as exc:
            return {}, _counted_from(start, exc)
    return _join(parts), None


def _counted_from(start: int, error: InvalidInput) -> InvalidInput:
    """Speaks of rows of the request, where the model counted those of a slice."""
    if not start:
        return error
    detail, field = str(error), error.field
    indexed = _INDEXED.match(field) if field is not None else None
    if field is not None and indexed is not None:
        name, row = indexed.groups()
        moved = f"{name}[{start + int(row)}]"
        field = moved + field[indexed.end() :]
        mention = re.compile(rf"(?<!\w){re.escape(indexed[0])}")
        if mention.search(detail):
            return InvalidInput(mention.sub(lambda _: moved, detail), field)
    return InvalidInput(f"counted from row {start}: {detail}", field)


def _take(batch: InferenceBatch, members: Sequence[int]) -> Mapping[str, Array]:
    """The inputs of some members; no copy if they lie next to each other."""
    if len(members) == len(batch.rows):
        return batch.inputs
    ends = list(accumulate(batch.rows))
    spans = [slice(ends[member] - batch.rows[member], ends[member]) for member in members]
    if members[-1] - members[0] + 1 == len(members):
        span = slice(spans[0].start, spans[-1].stop)
        return {name: array[span] for name, array in batch.inputs.items()}
    return {
        name: np.concatenate([array[span] for span in spans])
        for name, array in batch.inputs.items()
    }


def _failure(error: BaseException, batch: InferenceBatch, member: int) -> Failure:
    if isinstance(error, InvalidInput):
        return Failure(InvalidInput.code, str(error), error.field)
    if isinstance(error, _OutOfTime):
        return Failure(DeadlineExceeded.code, _LATE_INSIDE)
    extra = {"action": "predict", "request_id": batch.request_ids[member]}
    if batch.traceparents and batch.traceparents[member]:
        extra["trace_id"] = trace_id(batch.traceparents[member])
    logger.error("the model failed", exc_info=error, extra=extra)
    return Failure(ModelFailed.code, "the model failed to compute this request")


def _join(parts: list[Mapping[str, Array]]) -> dict[str, Array]:
    if len(parts) == 1:
        return dict(parts[0])
    if not parts:
        return {}
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
