"""Rollouts: one row each that follows it, and one event for each state and step that it came to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, Row, Select, insert, select, update
from sqlmodel import col

from serve_app.domain.control import Rollout, RolloutState
from serve_app.domain.release import Strategy
from serve_app.errors import Conflict
from serve_app.store.engine import lock_model
from serve_app.store.stored import storable, utc
from serve_app.store.tables import UNFINISHED, RolloutEventRow, RolloutRow

ENDED: frozenset[RolloutState] = frozenset({"promoted", "rolled_back"})


@dataclass(frozen=True, slots=True)
class RolloutDraft:
    """A rollout that begins."""

    model: str
    state: RolloutState
    reason: str
    steps: tuple[int, ...]
    origin: Mapping[str, int]
    origin_revision: int
    """The revision that was in force before."""
    target: Mapping[str, int]
    strategy: Strategy
    step_began_at: datetime
    memory: Mapping[str, Any]
    """All that its machine knows, to go on from after a restart."""
    step: int = 0


class StoredRollout(Rollout):
    """A rollout with all that ModelRouter needs to go on with it after a restart."""

    strategy: Strategy
    origin_revision: int = Field(description="the revision that was in force before")
    step_began_at: datetime
    memory: Mapping[str, Any] = Field(description="all that its machine knows")


class RolloutEvent(BaseModel):
    """A rollout came into a state or to a step, and what was known then."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    state: RolloutState
    step: int
    reason: str
    evidence: Mapping[str, Any]


def begin(connection: Connection, draft: RolloutDraft) -> StoredRollout:
    """Begins a rollout.

    Raises:
        Conflict: the model has one that has not ended.
    """
    lock_model(connection, draft.model)
    if going_on(connection, draft.model) is not None:
        raise Conflict(f"a rollout of model {draft.model!r} is going on already")
    now = datetime.now(UTC)
    values = {
        "model": draft.model,
        "state": draft.state,
        "reason": storable(draft.reason),
        "step": draft.step,
        "steps": list(draft.steps),
        "origin": dict(draft.origin),
        "origin_revision": draft.origin_revision,
        "target": dict(draft.target),
        "strategy": draft.strategy.model_dump(mode="json"),
        "created_at": now,
        "changed_at": now,
        "step_began_at": draft.step_began_at,
        "evidence": {},
        "memory": dict(draft.memory),
    }
    number = connection.execute(
        insert(RolloutRow).values(**values).returning(col(RolloutRow.id))
    ).scalar_one()
    rollout = StoredRollout.model_validate({**values, "id": number})
    _note(connection, rollout, now)
    return rollout


def save(connection: Connection, rollout: StoredRollout) -> StoredRollout:
    """Stores how far a rollout is; an event too if it came into a state or to a step.

    Returns:
        The same, with the time of its last change.

    Raises:
        Conflict: it has ended already, or there is no such rollout.
        ValueError: its evidence is no JSON; NaN and infinity are not.
    """
    json.dumps(dict(rollout.evidence), allow_nan=False)
    before = connection.execute(
        select(col(RolloutRow.state), col(RolloutRow.step), col(RolloutRow.changed_at))
        .where(col(RolloutRow.id) == rollout.id)
        .with_for_update()
    ).first()
    if before is None or before.state in ENDED:
        raise Conflict(f"rollout {rollout.id} of model {rollout.model!r} has ended")
    now = datetime.now(UTC)
    moved = (before.state, before.step) != (rollout.state, rollout.step)
    changed_at = now if moved else utc(before.changed_at)
    saved = rollout.model_copy(
        update={"reason": storable(rollout.reason), "changed_at": changed_at}
    )
    connection.execute(
        update(RolloutRow)
        .where(col(RolloutRow.id) == saved.id)
        .values(
            state=saved.state,
            reason=saved.reason,
            step=saved.step,
            changed_at=saved.changed_at,
            step_began_at=saved.step_began_at,
            evidence=dict(saved.evidence),
            memory=dict(saved.memory),
        )
    )
    if moved:
        _note(connection, saved, now)
    return saved


def going_on(connection: Connection, model: str) -> StoredRollout | None:
    """The rollout of a model that has not ended."""
    rows = select(RolloutRow).where(col(RolloutRow.model) == model, UNFINISHED)
    return next(iter(_all(connection, rows)), None)


def unfinished(connection: Connection) -> list[StoredRollout]:
    """All rollouts that have not ended."""
    return _all(connection, select(RolloutRow).where(UNFINISHED))


def newest(connection: Connection, model: str, limit: int) -> list[StoredRollout]:
    """The newest rollouts of a model, newest first."""
    rows = select(RolloutRow).where(col(RolloutRow.model) == model)
    return _all(connection, rows.order_by(col(RolloutRow.id).desc()).limit(limit))


def events(connection: Connection, rollout_id: int, limit: int) -> list[RolloutEvent]:
    """The newest events of a rollout, newest first."""
    rows = connection.execute(
        select(RolloutEventRow)
        .where(col(RolloutEventRow.rollout_id) == rollout_id)
        .order_by(col(RolloutEventRow.id).desc())
        .limit(limit)
    )
    return [RolloutEvent.model_validate({**row._mapping, "at": utc(row.at)}) for row in rows]


def _note(connection: Connection, rollout: StoredRollout, at: datetime) -> None:
    connection.execute(
        insert(RolloutEventRow).values(
            rollout_id=rollout.id,
            at=at,
            state=rollout.state,
            step=rollout.step,
            reason=rollout.reason,
            evidence=dict(rollout.evidence),
        )
    )


def _all(connection: Connection, rows: Select[RolloutRow]) -> list[StoredRollout]:
    return [_rollout(row) for row in connection.execute(rows)]


def _rollout(row: Row[RolloutRow]) -> StoredRollout:
    times = {name: utc(getattr(row, name)) for name in ("created_at", "changed_at")}
    return StoredRollout.model_validate(
        {**row._mapping, **times, "step_began_at": utc(row.step_began_at)}
    )
