"""Which requests an outcome may be reported for, what was reported, and the sums of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlmodel import col

from serve_app.domain.arms import Exposure
from serve_app.domain.control import Outcome, Receipt, ReceiptStatus
from serve_app.errors import InvalidInput
from serve_app.store.engine import lock_model
from serve_app.store.tables import ExposureRow, OutcomeRow

PENDING_S = 60.0
"""An outcome waits so long for its exposure, which ingresses report a second or two later."""

LARGEST = 1e15
"""Of reported numbers: the sum of the squares of many stays finite, and exact enough."""

_Exposed = Row[*tuple[Any, ...]]
"""Version, time and prediction of an exposure."""

_CHUNK = 1000
"""Ids in one query."""


class ArmTotals(NamedTuple):
    """What is known of one version's requests; enough for a mean and its variance."""

    exposures: int
    outcomes: int
    total: float
    """Sum of all values; of labels, how many were right."""
    deviations: float
    """Sum of the squared distances from their mean."""


def record_exposures(connection: Connection, exposures: Sequence[Exposure]) -> None:
    """Stores exposures, and counts the outcomes that have waited for them.

    A request id that a model has had already stays with its first exposure.
    """
    models = sorted({exposure.key.model for exposure in exposures})
    for model in models:
        lock_model(connection, model)
    sqlite = connection.dialect.name == "sqlite"
    new = sqlite_insert(ExposureRow) if sqlite else postgresql_insert(ExposureRow)
    rows = [
        {
            "model": each.key.model,
            "request_id": each.request_id,
            "version": each.key.version,
            "at": each.at,
            "prediction": list(each.prediction),
        }
        for each in exposures
    ]
    if rows:
        connection.execute(new.on_conflict_do_nothing(), rows)
        _count_pending(connection, models)


def record_outcomes(
    connection: Connection, model: str, outcomes: Sequence[Outcome], window_s: float, now: float
) -> list[Receipt]:
    """Stores what was reported; the first outcome of a request counts.

    Args:
        connection: its transaction may write.
        model: whose requests.
        outcomes: of the kind that the model's release asks for.
        window_s: how long after its request an outcome counts.
        now: seconds since the epoch.

    Returns:
        What was done with each, in the same order.

    Raises:
        InvalidInput: one does not fit its request; nothing is stored.
    """
    lock_model(connection, model)
    # No request has such an id, and no database takes a NUL.
    ids = [outcome.request_id.replace("\0", "\ufffd") for outcome in outcomes]
    known = _exposures(connection, model, ids)
    taken = _taken(connection, model, ids)
    receipts, rows = [], []
    for index, (request_id, outcome) in enumerate(zip(ids, outcomes, strict=True)):
        exposure = known.get(request_id)
        status: ReceiptStatus
        if request_id in taken:
            status = "duplicate"
        elif exposure is not None and now - exposure.at > window_s:
            status = "late"
        else:
            status = "pending" if exposure is None else "counted"
            row = {
                "model": model,
                "request_id": request_id,
                "at": now,
                "reported": _reported(outcome),
            }
            rows.append({**row, **_match(outcome, exposure, f"outcomes[{index}]")})
            taken.add(request_id)
        receipts.append(Receipt(request_id=outcome.request_id, status=status))
    if rows:
        connection.execute(insert(OutcomeRow), rows)
    return receipts


def aggregates(connection: Connection, model: str, since: float) -> dict[str, ArmTotals]:
    """The totals of each version over the requests from a moment on.

    Args:
        connection: it may be read-only.
        model: whose.
        since: seconds since the epoch; outcomes belong to the time of their request.
    """
    none, nothing = literal(0), literal(0.0)
    counted = (col(OutcomeRow.model) == model, col(OutcomeRow.exposed_at) >= since)
    # Squares of values that are large and alike would cancel out: those of distances do not.
    pivot = select(col(OutcomeRow.value)).where(*counted).limit(1).scalar_subquery()
    distance = col(OutcomeRow.value) - pivot
    exposed: Select[*tuple[Any, ...]] = (
        select(
            col(ExposureRow.version).label("version"),
            func.count().label("exposures"),
            none.label("outcomes"),
            nothing.label("total"),
            nothing.label("distances"),
            nothing.label("squares"),
        )
        .where(col(ExposureRow.model) == model, col(ExposureRow.at) >= since)
        .group_by(col(ExposureRow.version))
    )
    reported = (
        select(
            col(OutcomeRow.version),
            none,
            func.count(),
            func.sum(col(OutcomeRow.value)),
            func.sum(distance),
            func.sum(distance * distance),
        )
        .where(*counted)
        .group_by(col(OutcomeRow.version))
    )
    both = union_all(exposed, reported).subquery()
    version, *figures = both.c
    rows = connection.execute(
        select(version, *map(func.sum, figures)).group_by(version).order_by(version)
    )
    return {name: _totals(*map(float, sums)) for name, *sums in rows}


def _totals(
    exposures: float, outcomes: float, total: float, distances: float, squares: float
) -> ArmTotals:
    spread = squares - distances**2 / outcomes if outcomes else 0.0
    return ArmTotals(int(exposures), int(outcomes), total, max(0.0, spread))


def next_model(connection: Connection, after: str) -> str | None:
    """The first model, by name, above this one that has exposures or outcomes."""
    names = [
        connection.execute(select(func.min(column)).where(column > after)).scalar()
        for column in (col(ExposureRow.model), col(OutcomeRow.model))
    ]
    return min((name for name in names if name is not None), default=None)


def delete_old(connection: Connection, model: str, before: float, limit: int) -> int:
    """Deletes a model's exposures and counted outcomes of requests before a moment.

    Returns:
        How many rows are gone; less than `limit` when none of either kind is left.
    """
    deleted = 0
    for table, moment in (
        (ExposureRow, col(ExposureRow.at)),
        (OutcomeRow, col(OutcomeRow.exposed_at)),
    ):
        old = (
            select(col(table.request_id)).where(col(table.model) == model, moment < before)
        ).limit(limit - deleted)
        statement = delete(table).where(col(table.model) == model, col(table.request_id).in_(old))
        deleted += connection.execute(statement).rowcount
    return deleted


def delete_pending(connection: Connection, now: float) -> int:
    """Drops outcomes whose exposure has not come in time; returns how many."""
    statement = delete(OutcomeRow).where(
        col(OutcomeRow.exposed_at).is_(None), col(OutcomeRow.at) < now - PENDING_S
    )
    return connection.execute(statement).rowcount


def _count_pending(connection: Connection, models: Sequence[str]) -> None:
    found = connection.execute(
        select(
            col(OutcomeRow.model),
            col(OutcomeRow.request_id),
            col(OutcomeRow.reported),
            col(ExposureRow.version),
            col(ExposureRow.at),
            col(ExposureRow.prediction),
        )
        .join(
            ExposureRow,
            and_(
                col(ExposureRow.model) == col(OutcomeRow.model),
                col(ExposureRow.request_id) == col(OutcomeRow.request_id),
            ),
        )
        .where(col(OutcomeRow.exposed_at).is_(None), col(OutcomeRow.model).in_(models))
    ).all()
    matched, unfit = [], []
    for row in found:
        key = {"of_model": row.model, "of_request": row.request_id}
        outcome = Outcome(request_id=row.request_id, **row.reported)
        try:
            matched.append({**key, **_match(outcome, row, "outcome")})
        except InvalidInput:
            unfit.append(key)
    itself = and_(
        col(OutcomeRow.model) == bindparam("of_model"),
        col(OutcomeRow.request_id) == bindparam("of_request"),
    )
    if matched:
        connection.execute(update(OutcomeRow).where(itself), matched)
    if unfit:
        connection.execute(delete(OutcomeRow).where(itself), unfit)


def _exposures(connection: Connection, model: str, ids: Sequence[str]) -> dict[str, _Exposed]:
    found: dict[str, _Exposed] = {}
    for chunk in _chunks(ids):
        rows = connection.execute(
            select(
                col(ExposureRow.request_id),
                col(ExposureRow.version),
                col(ExposureRow.at),
                col(ExposureRow.prediction),
            ).where(col(ExposureRow.model) == model, col(ExposureRow.request_id).in_(chunk))
        )
        found.update((row.request_id, row) for row in rows)
    return found


def _taken(connection: Connection, model: str, ids: Sequence[str]) -> set[str]:
    taken: set[str] = set()
    for chunk in _chunks(ids):
        taken.update(
            connection.execute(
                select(col(OutcomeRow.request_id)).where(
                    col(OutcomeRow.model) == model, col(OutcomeRow.request_id).in_(chunk)
                )
            ).scalars()
        )
    return taken


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _CHUNK):
        yield ids[start : start + _CHUNK]


def _reported(outcome: Outcome) -> dict[str, Any]:
    return outcome.model_dump(mode="json", exclude={"request_id"}, exclude_none=True)


def _match(outcome: Outcome, exposure: _Exposed | None, field: str) -> dict[str, Any]:
    """What an outcome comes to with its exposure; nothing without one."""
    value = _value(outcome, exposure.prediction if exposure is not None else None, field)
    if exposure is None:
        return {"version": None, "exposed_at": None, "value": None}
    return {"version": exposure.version, "exposed_at": exposure.at, "value": value}


def _value(outcome: Outcome, prediction: Sequence[int] | None, field: str) -> float:
    """The figure that counts: what was given, or the share of rows whose label was right."""
    if outcome.label is None:
        name = "reward" if outcome.number is None else "number"
        given = outcome.reward if outcome.number is None else outcome.number
        if given is None or abs(given) > LARGEST:
            raise InvalidInput(f"must be given, and at most {LARGEST:g}", f"{field}.{name}")
        return given
    labels = outcome.label if isinstance(outcome.label, tuple) else (outcome.label,)
    if prediction is None:
        return 0.0
    if len(labels) != len(prediction):
        text = f"{len(labels)} labels for an answer of {len(prediction)} rows"
        raise InvalidInput(text, f"{field}.label")
    return sum(map(int.__eq__, labels, prediction)) / len(labels)
