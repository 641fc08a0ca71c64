"""Failures stay with their own request: a batch that fails is split until only guilty ones fail."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

import numpy as np

from serve_app.domain.inference import Failure, InferenceBatch
from serve_app.domain.tensor import Array
from serve_app.errors import DeadlineExceeded, InvalidInput, ModelFailed

logger = logging.getLogger(__name__)

Compute = Callable[[Mapping[str, Array], int], Mapping[str, Array]]
"""Computes inputs of so many rows."""


def compute_isolated(
    batch: InferenceBatch, compute: Compute, elapsed_s: Callable[[], float]
) -> tuple[dict[str, Array], dict[int, Failure]]:
    """Computes a batch; members that are late or at fault fail alone.

    A failing batch is halved again and again, so that g guilty members among n cost about
    g * log2(n) more computations. Before each computation, members without time left are dropped.

    Args:
        batch: the members and their inputs.
        compute: the model, with its outputs checked.
        elapsed_s: time since the batch was received; members' budgets count from there.

    Returns:
        The outputs of the members that succeeded, in order (empty if none did), and the failures.
    """
    failures: dict[int, Failure] = {}
    parts: list[Mapping[str, Array]] = []
    pending: list[Sequence[int]] = [range(len(batch.rows))]
    while pending:
        members = _in_time(batch, pending.pop(), elapsed_s(), failures)
        if not members:
            continue
        outputs, error = _attempt(batch, members, compute)
        if error is None:
            parts.append(outputs)
        elif len(members) == 1:
            failures[members[0]] = _failure(error, batch.request_ids[members[0]])
        else:
            middle = len(members) // 2
            pending += members[middle:], members[:middle]  # the first half is taken next
        del error  # its traceback holds the tensors of the failed attempt
    return _join(parts), failures


def _in_time(
    batch: InferenceBatch, members: Sequence[int], elapsed_s: float, failures: dict[int, Failure]
) -> Sequence[int]:
    """Drops members whose budget has passed."""
    budgets = batch.budgets_s
    late = [member for member in members if budgets[member] <= elapsed_s]
    if not late:
        return members
    for member in late:
        failures[member] = Failure(
            DeadlineExceeded.code, "the deadline passed before the model could compute"
        )
    return [member for member in members if budgets[member] > elapsed_s]


def _attempt(
    batch: InferenceBatch, members: Sequence[int], compute: Compute
) -> tuple[Mapping[str, Array], BaseException | None]:
    """Computes some members together; returns the error instead of raising it.

    The caller goes on outside of the `except` clause: a halved batch may fit into memory where
    the whole did not, once the frames of the failure are gone.
    """
    try:
        rows = sum(batch.rows[member] for member in members)
        return compute(_take(batch, members), rows), None
    except (Exception, SystemExit) as exc:  # model code must not be able to end the thread
        return {}, exc


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


def _failure(error: BaseException, request_id: str) -> Failure:
    if isinstance(error, InvalidInput):
        return Failure(InvalidInput.code, str(error))
    logger.error(
        "the model failed", exc_info=error, extra={"action": "predict", "request_id": request_id}
    )
    return Failure(ModelFailed.code, "the model failed to compute this request")


def _join(parts: list[Mapping[str, Array]]) -> dict[str, Array]:
    if len(parts) == 1:
        return dict(parts[0])
    if not parts:
        return {}
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
