"""Looks at how a database runs what a `ReleaseStore` asks it: the very statements, not copies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event, text

from serve_app.config.cluster import DatabaseConfig
from serve_app.domain.arms import Exposure
from serve_app.domain.control import Outcome
from serve_app.domain.inference import VersionKey
from serve_app.store.engine import connect, transaction
from serve_app.store.releases import ReleaseStore
from tests.unit.store.release_suite import NOW, draft, exposure, label, rollout

TABLES = ("revision", "rollout", "rollout_event", "exposure", "outcome")
PARTIAL = ("uq_rollout_unfinished", "ix_outcome_pending")
"""Indexes that hold few rows whatever the size of the table: these may be read from end to end."""

Statement = tuple[str, Any]


@contextmanager
def recorded() -> Iterator[list[Statement]]:
    """Every statement that any engine executes in this block, once, with its parameters."""
    seen: dict[str, Any] = {}

    def note(
        _connection: object,
        _cursor: object,
        statement: str,
        parameters: Any,
        _c: object,
        many: bool,
    ) -> None:
        seen.setdefault(statement, parameters[0] if many else parameters)

    statements: list[Statement] = []
    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)
        statements += seen.items()


async def fill(store: ReleaseStore, database: DatabaseConfig) -> None:
    """Enough rows of several models for a planner to see what an index is good for."""
    for model in ("digits", *(f"m{n}" for n in range(20))):
        for _ in range(5):
            begun = await store.open_rollout(rollout(model))
            await store.append(draft(model), None, saves=begun.model_copy(update={"step": 1}))
            await store.save_rollout(begun.model_copy(update={"state": "promoted", "step": 1}))
        key = VersionKey(model, "1")
        ids = [f"r{n}" for n in range(300)]
        await store.record_exposures([Exposure(each, key, NOW, (3,)) for each in ids])
        await store.record_outcomes(model, [label(each) for each in ids[:200]], 60, NOW)
    with transaction(connect(database)) as connection:
        connection.execute(text("ANALYZE"))


async def everyday(store: ReleaseStore) -> None:
    """What runs more than once a minute: all methods but `current_all`, which is for the start."""
    begun = await store.open_rollout(rollout())
    await store.append(draft(), None, saves=begun.model_copy(update={"state": "progressing"}))
    await store.append(draft(), (await store.history("digits", 1))[0].number)
    await store.save_rollout(begun.model_copy(update={"state": "paused", "step": 1}))
    await store.current("digits")
    await store.situation("digits")
    await store.history("digits", 3, before=5)
    await store.get("digits", 2)
    await store.active_rollouts()
    await store.rollouts("digits", 3)
    await store.rollout_events(begun.id)
    outcomes = [Outcome(request_id=each, label=3) for each in ("soon", "r0", "r299")]
    await store.record_outcomes("digits", [*outcomes, label("two", (1, 2))], 60, NOW + 1)
    await store.record_exposures([exposure("soon"), exposure("two")])
    await store.aggregates("digits", NOW - 10)
    await store.prune(NOW + 100, {"digits": 50.0})


def scans(connection: Connection, statements: list[Statement]) -> list[str]:
    """The plans that read a whole table, or a whole index of it, with their statements."""
    read = _sqlite_scans if connection.dialect.name == "sqlite" else _postgresql_scans
    return [
        f"{scan}\n  in {statement}"
        for statement, parameters in statements
        if re.match(r"(SELECT|UPDATE|DELETE|INSERT)\b", statement)
        and any(re.search(rf"\b{table}\b", statement) for table in TABLES)
        for scan in read(connection, statement, parameters)
    ]


def _sqlite_scans(connection: Connection, statement: str, parameters: Any) -> Iterator[str]:
    for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters):
        # ANY(column) is a scan that skips within an index, for want of its first column.
        scan = re.match(rf"SCAN ({'|'.join(TABLES)})\b|.*\bANY\(", row.detail)
        if scan and not row.detail.endswith(PARTIAL):
            yield row.detail


def _postgresql_scans(connection: Connection, statement: str, parameters: Any) -> Iterator[str]:
    # Small tables are read whole, as that is faster; large ones are what this is about.
    connection.execute(text("SET LOCAL enable_seqscan = off"))
    explained = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
    nodes = [explained.scalar_one()[0]["Plan"]]
    for node in nodes:
        nodes += node.get("Plans", ())
        kind, index = node["Node Type"], node.get("Index Name")
        # Every index of ours begins with one of these; without it all entries are looked at.
        narrow = re.search(r"\b(model|id|rollout_id)\b", node.get("Index Cond", ""))
        whole = kind == "Seq Scan" or ("Index" in kind and narrow is None)
        if whole and index not in PARTIAL:
            yield f"{kind} on {node.get('Relation Name')} by {index}"
