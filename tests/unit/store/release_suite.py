"""What the store of releases must do on every database; run on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text

from serve_app.config.cluster import DatabaseConfig
from serve_app.domain.arms import Exposure
from serve_app.domain.control import Author, Outcome, Receipt
from serve_app.domain.inference import VersionKey
from serve_app.domain.release import Release, Strategy
from serve_app.errors import (
    ClusterError,
    Conflict,
    InvalidInput,
    RevisionConflict,
    RevisionNotFound,
    StoreUnavailable,
)
from serve_app.store.engine import connect, transaction
from serve_app.store.outcomes import LARGEST, PENDING_S, ArmTotals
from serve_app.store.releases import RETENTION_S, ReleaseStore
from serve_app.store.revisions import RevisionDraft
from serve_app.store.rollouts import RolloutDraft
from serve_app.store.schema import migrate, upgrade

NOW = 1_800_000_000.0
ADA = Author(actor="ada", reason="because")


def release(**weights: int) -> Release:
    candidates = [{"version": name[1:], "weight": weight} for name, weight in weights.items()]
    return Release.model_validate({"candidates": candidates})


def draft(model: str = "digits", **weights: int) -> RevisionDraft:
    return RevisionDraft(model, release(**(weights or {"v1": 100})), ADA, "sha")


def rollout(model: str = "digits") -> RolloutDraft:
    return RolloutDraft(
        model=model,
        state="pending",
        reason="version 2 is not ready",
        steps=(5, 100),
        origin={"1": 100},
        origin_revision=1,
        target={"2": 100},
        strategy=Strategy(type="canary", steps=(5,)),
        step_began_at=datetime.fromtimestamp(NOW, UTC),
        memory={"machine": 1},
    )


def exposure(
    request_id: str, version: str = "1", at: float = NOW, prediction: tuple[int, ...] = (3,)
) -> Exposure:
    return Exposure(request_id, VersionKey("digits", version), at, prediction)


def label(request_id: str, value: int | tuple[int, ...] = 3) -> Outcome:
    return Outcome(request_id=request_id, label=value)


def statuses(receipts: Any) -> list[str]:
    return [receipt.status for receipt in receipts]


class ReleaseSuite:
    """Each test gets an empty database from the fixture `database` of the subclass."""

    @pytest_asyncio.fixture
    async def store(self, database: DatabaseConfig) -> AsyncIterator[ReleaseStore]:
        store = ReleaseStore(database)
        yield store
        await store.close()

    async def test_a_new_database_is_empty(self, store: ReleaseStore) -> None:
        assert await store.current("digits") is None
        assert await store.current_all() == {}
        assert await store.history("digits") == []
        assert await store.active_rollouts() == {}
        assert await store.rollouts("digits") == []
        assert await store.aggregates("digits", 0) == {}
        assert await store.prune(NOW, {}) == 0

    async def test_a_revision_is_stored_whole(
        self, store: ReleaseStore, database: DatabaseConfig
    ) -> None:
        document = Release.model_validate(
            {
                "candidates": [{"version": "1", "weight": 90}, {"version": "2", "weight": 10}],
                "sticky": {"by": "header", "name": "x-user"},
                "rules": [{"match": {"header": {"x-cohort": "ü\0*"}}, "version": "2"}],
                "labels": {"stable": "1"},
                "mirror": [{"version": "3", "percent": 12.5}],
                "outcomes": {"kind": "label", "output": "logits"},
                "strategy": {"type": "canary", "steps": [5, 25], "bake_s": 7.5},
            }
        )
        author = Author(actor="o'hara\0", reason="'); DROP TABLE revision; --")
        written = await store.append(RevisionDraft("digits", document, author, "sha"), 0)
        assert written.rollout is None
        again = ReleaseStore(database)
        found = await again.current("digits")
        await again.close()
        assert found == written.revision
        assert found.release == document
        assert (found.number, found.config_digest, found.rollout_id) == (1, "sha", None)
        assert (found.actor, found.reason) == ("o'hara", "'); DROP TABLE revision; --")
        assert found.created_at.utcoffset() == timedelta(0)
        assert abs(datetime.now(UTC) - found.created_at) < timedelta(minutes=5)

    async def test_numbers_grow_per_model_and_history_is_newest_first(
        self, store: ReleaseStore
    ) -> None:
        for weight in (100, 90, 80, 70):
            await store.append(draft(v1=weight, v2=100 - weight), None)
        await store.append(draft("other"), 0)
        assert [each.number for each in await store.history("digits")] == [4, 3, 2, 1]
        assert [each.number for each in await store.history("digits", 2, before=4)] == [3, 2]
        current = await store.current_all()
        assert {name: each.number for name, each in current.items()} == {"digits": 4, "other": 1}
        assert current["digits"].changes == ("version 1: 80% -> 70%", "version 2: 20% -> 30%")
        assert (await store.get("digits", 2)).release.weights == {"1": 90, "2": 10}
        for missing in (0, 5):
            with pytest.raises(RevisionNotFound, match=f"no revision {missing}"):
                await store.get("digits", missing)

    @pytest.mark.parametrize("expected", [0, 1, 3])
    async def test_who_saw_another_revision_loses(self, store: ReleaseStore, expected: int) -> None:
        await store.append(draft(), None)
        await store.append(draft(), 1)
        with pytest.raises(RevisionConflict) as caught:
            await store.append(draft(), expected, opens=rollout())
        assert (caught.value.expected, caught.value.actual) == (expected, 2)
        assert len(await store.history("digits")) == 2
        assert await store.active_rollouts() == {}

    async def test_of_two_writers_at_once_one_wins(
        self, store: ReleaseStore, database: DatabaseConfig
    ) -> None:
        await store.append(draft(), 0)
        others = [ReleaseStore(database) for _ in range(3)]
        results = await asyncio.gather(
            *[
                writer.append(draft(v1=50, v2=50), 1, opens=rollout())
                for writer in (store, *others)
                for _ in range(3)
            ],
            return_exceptions=True,
        )
        kinds = Counter(type(each).__name__ for each in results)
        assert kinds == {"Written": 1, "RevisionConflict": 11}
        assert [each.number for each in await store.history("digits")] == [2, 1]
        assert len(await store.rollouts("digits")) == 1
        await asyncio.gather(*[other.close() for other in others])

    async def test_writers_that_overwrite_all_win_in_turn(self, store: ReleaseStore) -> None:
        await asyncio.gather(*[store.append(draft(), None) for _ in range(12)])
        history = await store.history("digits")
        assert [each.number for each in history] == list(range(12, 0, -1))

    @pytest.mark.parametrize("table", ["revision", "rollout_event"])
    @pytest.mark.parametrize("statement", ["UPDATE {} SET reason = ''", "DELETE FROM {}"])
    async def test_what_has_happened_stays(
        self, store: ReleaseStore, database: DatabaseConfig, table: str, statement: str
    ) -> None:
        written = await store.append(draft(), 0, opens=rollout())
        with (
            pytest.raises(ClusterError, match=f"rows of {table} are never changed"),
            transaction(connect(database)) as connection,
        ):
            connection.execute(text(statement.format(table)))
        assert await store.get("digits", 1) == written.revision

    async def test_a_rollout_from_beginning_to_end(
        self, store: ReleaseStore, database: DatabaseConfig
    ) -> None:
        await store.append(draft(), 0)
        opened = await store.open_rollout(rollout())
        assert await store.active_rollouts() == {"digits": opened}
        assert opened.created_at == opened.changed_at
        # Evidence is saved each second and makes no event.
        evidence = {"error_rate": {"wealth": 1.25, "counts": [1, 2]}}
        saved = await store.save_rollout(opened.model_copy(update={"evidence": evidence}))
        assert saved.changed_at == opened.changed_at
        went_on = saved.model_copy(update={"state": "progressing", "reason": "ready"})
        progressing = await store.append(draft(v1=95, v2=5), 1, saves=went_on)
        assert progressing.rollout is not None
        assert progressing.revision.rollout_id == opened.id
        assert progressing.rollout.changed_at > opened.changed_at

        again = ReleaseStore(database)
        assert await again.active_rollouts() == {"digits": progressing.rollout}
        ended = progressing.rollout.model_copy(update={"state": "promoted", "step": 1})
        await again.append(draft(v2=100), 2, saves=ended)
        assert await again.active_rollouts() == {}
        (found,) = await again.rollouts("digits")
        events = await again.rollout_events(opened.id)
        await again.close()
        assert (found.state, found.step, found.evidence) == ("promoted", 1, evidence)
        assert [(each.state, each.step) for each in events] == [
            ("promoted", 1),
            ("progressing", 0),
            ("pending", 0),
        ]
        assert [each.evidence for each in events] == [evidence, evidence, {}]

    async def test_a_rollout_that_has_ended_stays_ended(self, store: ReleaseStore) -> None:
        opened = await store.open_rollout(rollout())
        ended = opened.model_copy(update={"state": "rolled_back", "reason": "errors"})
        await store.save_rollout(ended)
        with pytest.raises(Conflict, match=f"rollout {opened.id} of model 'digits' has ended"):
            await store.save_rollout(opened)
        with pytest.raises(Conflict):
            await store.append(draft(), None, saves=opened)
        assert await store.current("digits") is None
        assert [each.state for each in await store.rollouts("digits")] == ["rolled_back"]

    async def test_a_model_has_one_rollout_at_a_time(self, store: ReleaseStore) -> None:
        first = await store.open_rollout(rollout())
        await store.open_rollout(rollout("other"))
        for _ in range(2):
            with pytest.raises(Conflict, match="a rollout of model 'digits' is going on"):
                await store.append(draft(), 0, opens=rollout())
        assert await store.current("digits") is None
        replaced = first.model_copy(update={"state": "rolled_back", "reason": "replaced"})
        written = await store.append(draft(), 0, saves=replaced, opens=rollout())
        assert written.rollout is not None
        assert written.revision.rollout_id == written.rollout.id != first.id
        assert (await store.active_rollouts())["digits"] == written.rollout
        assert [each.id for each in await store.rollouts("digits", 1)] == [written.rollout.id]

    async def test_two_rollouts_that_go_on_are_refused_by_the_database(
        self, store: ReleaseStore, database: DatabaseConfig
    ) -> None:
        await store.open_rollout(rollout())
        copied = (
            "model, state, reason, step, steps, origin, origin_revision, target, strategy, "
            "created_at, changed_at, step_began_at, evidence, memory"
        )
        with (
            pytest.raises(ClusterError, match=r"(?i)unique"),
            transaction(connect(database)) as connection,
        ):
            connection.execute(text(f"INSERT INTO rollout ({copied}) SELECT {copied} FROM rollout"))

    async def test_evidence_that_is_no_json_is_refused(self, store: ReleaseStore) -> None:
        opened = await store.open_rollout(rollout())
        with pytest.raises(ValueError, match="JSON"):
            await store.save_rollout(opened.model_copy(update={"evidence": {"p": float("nan")}}))
        assert (await store.active_rollouts())["digits"] == opened

    async def test_outcomes_of_known_requests_count_once(self, store: ReleaseStore) -> None:
        await store.record_exposures([exposure("a"), exposure("b", "2"), exposure("c", "2")])
        await store.record_exposures([exposure("a", "2", NOW - 50, (9,))])  # the first one stays
        receipts = await store.record_outcomes(
            "digits", [label("a"), label("a", 4), label("b", 4)], 60, NOW + 1
        )
        assert receipts == [
            Receipt(request_id="a", status="counted"),
            Receipt(request_id="a", status="duplicate"),
            Receipt(request_id="b", status="counted"),
        ]
        assert statuses(await store.record_outcomes("digits", [label("b")], 60, NOW + 2)) == [
            "duplicate"
        ]
        assert await store.aggregates("digits", NOW) == {
            "1": ArmTotals(1, 1, 1.0, 0.0),
            "2": ArmTotals(2, 1, 0.0, 0.0),
        }

    async def test_late_outcomes_are_refused(self, store: ReleaseStore) -> None:
        await store.record_exposures([exposure("a"), exposure("b")])
        assert statuses(await store.record_outcomes("digits", [label("a")], 60, NOW + 60)) == [
            "counted"
        ]
        late = await store.record_outcomes("digits", [label("b"), label("a")], 60, NOW + 61)
        assert statuses(late) == ["late", "duplicate"]
        assert (await store.aggregates("digits", NOW))["1"].outcomes == 1

    async def test_outcomes_wait_for_their_exposure(self, store: ReleaseStore) -> None:
        early = [label("a"), label("b", 4), label("never"), label("two", (3, 4))]
        receipts = await store.record_outcomes("digits", [*early, label("a", 4)], 60, NOW)
        assert statuses(receipts) == ["pending"] * 4 + ["duplicate"]
        assert await store.aggregates("digits", 0) == {}
        await store.record_exposures([exposure("a"), exposure("b"), exposure("two")])
        # "two" has labels for two rows and an answer of one: it counts for nothing.
        assert await store.aggregates("digits", NOW) == {"1": ArmTotals(3, 2, 1.0, 0.5)}
        assert await store.prune(NOW + PENDING_S, {}) == 0
        assert await store.prune(NOW + PENDING_S + 1, {}) == 1
        await store.record_exposures([exposure("never")])
        assert await store.aggregates("digits", NOW) == {"1": ArmTotals(4, 2, 1.0, 0.5)}

    async def test_an_outcome_and_its_exposure_at_once_are_never_missed(
        self, store: ReleaseStore
    ) -> None:
        ids = [f"r{n}" for n in range(40)]
        await asyncio.gather(
            *[store.record_outcomes("digits", [label(each)], 60, NOW) for each in ids],
            *[store.record_exposures([exposure(each)]) for each in ids],
        )
        assert await store.aggregates("digits", NOW) == {"1": ArmTotals(40, 40, 40.0, 0.0)}

    async def test_numbers_and_rewards_are_summed(self, store: ReleaseStore) -> None:
        await store.record_exposures([exposure(each, prediction=()) for each in "abc"])
        reported = [
            Outcome(request_id="a", number=2.5),
            Outcome(request_id="b", reward=-1.0),
            Outcome(request_id="c", number=LARGEST),
        ]
        assert (
            statuses(await store.record_outcomes("digits", reported[:2], 60, NOW))
            == ["counted"] * 2
        )
        assert await store.aggregates("digits", NOW) == {"1": ArmTotals(3, 2, 1.5, 6.125)}
        await store.record_outcomes("digits", reported[2:], 60, NOW)
        found = (await store.aggregates("digits", NOW))["1"]
        assert found.deviations == pytest.approx(LARGEST**2 * 2 / 3)

    async def test_numbers_that_are_large_and_alike_keep_their_variance(
        self, store: ReleaseStore
    ) -> None:
        values = [1.7e9 + n % 3 for n in range(300)]
        await store.record_exposures([exposure(f"r{n}", prediction=()) for n in range(300)])
        reported = [Outcome(request_id=f"r{n}", number=each) for n, each in enumerate(values)]
        await store.record_outcomes("digits", reported, 60, NOW)
        found = (await store.aggregates("digits", NOW))["1"]
        assert (found.outcomes, found.total) == (300, sum(values))
        assert found.deviations == pytest.approx(200)

    async def test_several_rows_count_as_one_outcome(self, store: ReleaseStore) -> None:
        await store.record_exposures([exposure("a", prediction=(1, 2, 3, 4))])
        await store.record_outcomes("digits", [label("a", (1, 2, 0, 0))], 60, NOW)
        assert await store.aggregates("digits", NOW) == {"1": ArmTotals(1, 1, 0.5, 0.0)}

    @pytest.mark.parametrize(
        ("outcome", "field"),
        [
            (label("a", (3, 4)), "outcomes[1].label"),
            (Outcome(request_id="a", number=-2 * LARGEST), "outcomes[1].number"),
            (Outcome(request_id="unknown", reward=1e300), "outcomes[1].reward"),
        ],
    )
    async def test_an_outcome_that_does_not_fit_stores_none(
        self, store: ReleaseStore, outcome: Outcome, field: str
    ) -> None:
        await store.record_exposures([exposure("a"), exposure("b")])
        with pytest.raises(InvalidInput) as caught:
            await store.record_outcomes("digits", [label("b"), outcome], 60, NOW)
        assert caught.value.field == field
        assert statuses(await store.record_outcomes("digits", [label("b")], 60, NOW)) == ["counted"]

    async def test_ids_that_databases_refuse_are_unknown_ids(self, store: ReleaseStore) -> None:
        await store.record_exposures([exposure("a")])
        hostile = ["a\0", "\0" * 128, "'; DROP TABLE outcome; --"]
        receipts = await store.record_outcomes("digits", [label(each) for each in hostile], 60, NOW)
        assert [each.request_id for each in receipts] == hostile
        assert statuses(receipts) == ["pending"] * 3

    async def test_a_report_may_start_anew(self, store: ReleaseStore) -> None:
        await store.record_exposures([exposure("old", at=NOW), exposure("new", at=NOW + 10)])
        await store.record_outcomes("digits", [label("old"), label("new", 4)], 60, NOW + 20)
        # What is reported later of an earlier request belongs to the earlier report.
        assert await store.aggregates("digits", NOW + 10) == {"1": ArmTotals(1, 1, 0.0, 0.0)}
        assert await store.aggregates("digits", NOW) == {"1": ArmTotals(2, 2, 1.0, 0.5)}
        assert await store.aggregates("digits", NOW + 11) == {}

    async def test_thousands_at_once(self, store: ReleaseStore) -> None:
        exposures = [exposure(f"r{n}", str(n % 2), NOW, (n % 10,)) for n in range(6000)]
        await store.record_exposures(exposures)
        await store.record_exposures(exposures)
        reported = [label(f"r{n}", n % 4) for n in range(6000)]
        receipts = await store.record_outcomes("digits", reported, 60, NOW)
        assert Counter(statuses(receipts)) == {"counted": 6000}
        right = [sum(n % 10 == n % 4 for n in range(each, 6000, 2)) for each in (0, 1)]
        found = await store.aggregates("digits", NOW)
        for each in (0, 1):
            assert found[str(each)][:3] == (3000, 3000, right[each])
            spread = right[each] * (3000 - right[each]) / 3000
            assert found[str(each)].deviations == pytest.approx(spread)

    async def test_prune_keeps_what_is_asked_for(
        self, store: ReleaseStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("serve_app.store.releases._CHUNK", 3)
        ages = range(0, 100, 10)
        for model in ("a", "b", "c"):
            key = VersionKey(model, "1")
            await store.record_exposures([Exposure(f"r{n}", key, NOW - n, (3,)) for n in ages])
            await store.record_outcomes(model, [label(f"r{n}") for n in ages], 1000, NOW)
        assert await store.prune(NOW, {"a": 50.0, "b": 1000.0}) == 8
        assert await store.aggregates("a", 0) == {"1": ArmTotals(6, 6, 6.0, 0.0)}
        for model in ("b", "c"):
            assert (await store.aggregates(model, 0))["1"].exposures == 10
        assert await store.prune(NOW + RETENTION_S - 5, {"a": 1e9, "b": 1e9}) == 18
        assert (await store.aggregates("c", 0))["1"].exposures == 1

    async def test_prune_stops_in_time_and_goes_on_later(
        self, store: ReleaseStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("serve_app.store.releases._CHUNK", 3)
        monkeypatch.setattr("serve_app.store.releases._CHUNKS", 2)
        await store.record_exposures([exposure(f"r{n}") for n in range(10)])
        deleted = [await store.prune(NOW + 100, {"digits": 10.0}) for _ in range(3)]
        assert deleted == [6, 4, 0]

    async def test_an_older_schema_is_upgraded(
        self, database: DatabaseConfig, store: ReleaseStore
    ) -> None:
        upgrade(database)
        engine = connect(database)
        migrate(engine, "0001", down=True)
        with transaction(engine) as connection:
            connection.execute(
                text(
                    "INSERT INTO deployment (created_at, actor, outcome, reason, sha256, config, "
                    "document) VALUES ('2026-01-01', 'ada', 'applied', '', '', '{}', '{}')"
                )
            )
        await store.append(draft(), 0)
        with transaction(engine) as connection:
            assert connection.execute(text("SELECT actor FROM deployment")).scalar() == "ada"
        migrate(engine, "0001", down=True)
        migrate(engine, "head")

    async def test_a_database_of_a_newer_release_is_left_alone(
        self, database: DatabaseConfig, store: ReleaseStore
    ) -> None:
        upgrade(database)
        with transaction(connect(database)) as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(StoreUnavailable) as caught:
            await store.current("digits")
        assert "newer release of serve-app" in caught.value.reason

    async def test_more_callers_than_connections(self, store: ReleaseStore) -> None:
        await store.append(draft(), 0)
        found = await asyncio.gather(*[store.current("digits") for _ in range(100)])
        assert {each.number for each in found if each} == {1}
