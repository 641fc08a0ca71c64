"""One batch out of its members, and errors for members out of its failures."""

from __future__ import annotations

import numpy as np

from serve_app.domain.inference import Failure, InferenceBatch
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


def error_of(failure: Failure) -> ServeAppError:
    """What a member's request fails with."""
    if failure.code == InvalidInput.code:
        return InvalidInput(failure.detail, failure.field)
    return _FAILURES.get(failure.code, ModelFailed)(failure.detail)


_FAILURES: dict[str, type[ServeAppError]] = {
    error.code: error for error in (ModelFailed, DeadlineExceeded, NotReady)
}
