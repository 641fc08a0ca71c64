"""One batch out of its members, and out of its result an answer or an error for each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from serve_app.domain.inference import BatchResult, Failure, InferenceBatch
from serve_app.domain.tensor import Array
from serve_app.errors import DeadlineExceeded, InvalidInput, ModelFailed, NotReady, ServeAppError
from serve_app.waiting import ALONE, Member, WaitingRoom


def assemble(members: list[Member], now: float, room: WaitingRoom) -> InferenceBatch:
    """The batch of these members.

    Args:
        members: with equal signatures.
        now: by `time.monotonic`; budgets count from here.
        room: where others still wait.
    """
    first = members[0].inputs
    if len(members) == 1:
        inputs = first
    else:
        inputs = {
            name: np.concatenate([member.inputs[name] for member in members]) for name in first
        }
    traceparents = tuple([member.trace.traceparent for member in members])
    return InferenceBatch(
        inputs,
        tuple([member.rows for member in members]),
        tuple([member.deadline - now for member in members]),
        tuple([member.trace.request_id for member in members]),
        0 if members[0].signature is ALONE else room.policy.max_rows,
        room.rows,
        traceparents if any(traceparents) else (),
    )


def deal_out(
    members: list[Member],
    result: BatchResult,
    departed: float,
    total: int,
    settle: Callable[[Member, Mapping[str, Array] | None, ServeAppError | None], None],
) -> None:
    """Gives each member its rows of the outputs, or its failure.

    Args:
        members: of the batch, in its order.
        result: what came back.
        departed: when the batch left, by `time.monotonic`.
        total: rows that it had.
        settle: takes a member with its outputs or its error.
    """
    outputs, failures = result.outputs, result.failures
    alone = len(members) == 1
    start = 0
    for index, member in enumerate(members):
        trace = member.trace
        trace.queue_s = departed - member.arrived
        trace.compute_s = result.compute_s
        trace.batch_rows = total
        trace.transport = result.transport
        if failures and (failure := failures.get(index)) is not None:
            settle(member, None, error_of(failure))
            continue
        stop = start + member.rows
        settle(
            member,
            outputs if alone else {name: array[start:stop] for name, array in outputs.items()},
            None,
        )
        start = stop


def late(result: BatchResult) -> bool:
    """Whether a member of the batch was too late to be computed."""
    return any(failure.code == DeadlineExceeded.code for failure in result.failures.values())


def error_of(failure: Failure) -> ServeAppError:
    """What a member's request fails with."""
    if failure.code == InvalidInput.code:
        return InvalidInput(failure.detail, failure.field)
    return _FAILURES.get(failure.code, ModelFailed)(failure.detail)


_FAILURES: dict[str, type[ServeAppError]] = {
    error.code: error for error in (ModelFailed, DeadlineExceeded, NotReady)
}
