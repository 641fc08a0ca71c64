"""Live releases over a real database: taken over, changed, moved by rollouts, found again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from deployments import experiments as experiments_module
from deployments import releases as releases_module
from deployments.releases import Releases
from serve_app.config.cluster import DatabaseConfig
from serve_app.config.load import load_config
from serve_app.config.model import ModelConfig
from serve_app.domain.arms import ArmCounts, Disagreement, Exposure, IngressReport
from serve_app.domain.control import Author, Outcome, Rollout, Steering
from serve_app.domain.inference import VersionKey
from serve_app.domain.release import Release
from serve_app.errors import (
    Conflict,
    InvalidInput,
    ModelNotFound,
    NotReady,
    RevisionConflict,
    RevisionNotFound,
    StoreUnavailable,
)
from serve_app.evidence.histogram import bound_above
from serve_app.store.releases import ReleaseStore
from serve_app.store.schema import upgrade

ADA = Author(actor="ada", reason="because")
DIGITS = load_config(["model=[digits]"]).models["digits"]
FAST = bound_above(0.01)
QUICK = {"type": "canary", "steps": [50], "bake_s": 2, "min_samples": 20}


class House:
    """A `Releases` with a database, a clock and replicas of its own."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.database = DatabaseConfig(url=f"sqlite:///{path}")
        upgrade(self.database)
        self.now = time.time()
        monkeypatch.setattr(releases_module, "time", lambda: self.now)
        self.ready = {"1", "2", "3"}
        self.published = 0
        self.on_publish: Callable[[], object] = lambda: None
        self.sequence = 0
        self.model = DIGITS
        self.releases = self._new()

    def _new(self) -> Releases:
        def publish() -> None:
            self.published += 1
            self.on_publish()

        self.store = ReleaseStore(self.database)
        made = Releases(self.store, lambda _: frozenset(self.ready), publish)
        made.configure({"digits": self.model})
        return made

    async def restart(self) -> None:
        """Its process is killed, and another one comes up."""
        await self.store.close()
        self.releases = self._new()
        await self.releases.open()

    def deploy(self, **release: Any) -> None:
        """A config whose desired release has these fields."""
        wanted = Release.model_validate({**DIGITS.release.model_dump(), **release})
        self.model = DIGITS.model_copy(update={"release": wanted})
        self.releases.configure({"digits": self.model})

    def undeploy(self, version: str) -> None:
        """The config does not have this version any more."""
        versions = {name: each for name, each in self.model.versions.items() if name != version}
        self.model = self.model.model_copy(update={"versions": versions})
        self.releases.configure({"digits": self.model})

    async def seconds(self, count: int, **counts: tuple[int, int]) -> None:
        """Time goes by; each second every named arm has so many requests and faults."""
        for _ in range(count):
            self.now += 1.0
            arms = {}
            for name, (requests, faults) in counts.items():
                latency = [0] * FAST + [requests - faults]
                arms[VersionKey("digits", name[1:])] = ArmCounts(requests, faults, tuple(latency))
            if arms:
                self.sequence += 1
                self.releases.take(IngressReport("ingress", self.sequence, arms, {}))
            await self.releases.tick()

    @property
    def weights(self) -> dict[str, int]:
        return {v: w for v, w in self.releases.release("digits").weights.items() if w}

    async def state(self) -> str:
        return (await self.releases.rollouts("digits", 1))[0].state


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    made = House(tmp_path / "state.db", monkeypatch)
    await made.releases.open()
    await made.releases.tick()
    yield made
    await made.store.close()


async def away(*_: Any, **__: Any) -> Any:
    """What every method of the store does while the database is away."""
    raise StoreUnavailable("gone")


def release(strategy: dict[str, Any] | None = None, **weights: int) -> Release:
    candidates = [{"version": v[1:], "weight": w} for v, w in weights.items()]
    return Release.model_validate({"candidates": candidates, "strategy": strategy or {}})


async def test_the_config_is_the_first_revision(house: House) -> None:
    first = await house.releases.live("digits")
    assert (first.number, first.actor) == (1, "config")
    assert first.release == DIGITS.release
    await house.releases.tick()
    assert (await house.releases.live("digits")).number == 1


async def test_a_changed_config_is_taken_over_once_its_versions_are_ready(house: House) -> None:
    house.ready = {"1", "2"}
    house.deploy(candidates=[{"version": "3", "weight": 100}])
    await house.releases.tick()
    assert house.weights == {"2": 100}
    house.ready = {"1", "2", "3"}
    await house.releases.tick()
    assert house.weights == {"3": 100}
    assert (await house.releases.live("digits")).number == 2


async def test_the_same_config_again_leaves_a_live_change_alone(house: House) -> None:
    await house.releases.change("digits", release(v2=90, v1=10), ADA, 1)
    house.deploy()
    await house.releases.tick()
    assert house.weights == {"2": 90, "1": 10}
    await house.restart()
    await house.releases.tick()
    assert house.weights == {"2": 90, "1": 10}


async def test_a_change_is_a_revision_with_author_reason_and_words(house: House) -> None:
    before = house.published
    made = await house.releases.change("digits", release(v2=90, v1=10), ADA, None)
    assert (made.number, made.actor, made.reason) == (2, "ada", "because")
    assert any("version 1" in words for words in made.changes)
    assert house.published > before
    assert [each.number for each in await house.releases.revisions("digits", 5, None)] == [2, 1]


async def test_a_release_that_has_to_wait_holds_up_no_other(house: House) -> None:
    house.releases.configure({"a": DIGITS, "digits": DIGITS})
    await house.releases.tick()
    house.ready = {"2", "3"}
    house.deploy(candidates=[{"version": "3", "weight": 100}])
    waits = DIGITS.release.model_copy(update={"labels": {"canary": "1"}})
    models = {"a": DIGITS.model_copy(update={"release": waits}), "digits": house.model}
    house.releases.configure(models)
    await house.releases.tick()
    assert house.weights == {"3": 100}
    assert (await house.releases.live("a")).number == 1


async def test_two_changes_at_once_one_wins(house: House) -> None:
    outcomes = await asyncio.gather(
        house.releases.change("digits", release(v1=100), ADA, 1),
        house.releases.change("digits", release(v3=100), ADA, 1),
        return_exceptions=True,
    )
    assert sorted(type(each).__name__ for each in outcomes) == ["Revision", "RevisionConflict"]


async def test_what_a_model_does_not_have_is_refused(house: House) -> None:
    with pytest.raises(InvalidInput, match="not a version"):
        await house.releases.change("digits", release(v9=100), ADA, None)
    with pytest.raises(ModelNotFound):
        await house.releases.live("nothing")
    house.ready = {"1", "2"}
    with pytest.raises(NotReady, match="'3'"):
        await house.releases.change("digits", release(v3=100), ADA, None)
    labelled = release(v2=100).model_copy(update={"labels": {"canary": "3"}})
    with pytest.raises(NotReady, match="labels"):
        await house.releases.change("digits", labelled, ADA, None)
    assert (await house.releases.live("digits")).number == 1


async def test_rollback_goes_to_the_one_before_or_to_a_named_one(house: House) -> None:
    await house.releases.change("digits", release(v1=100), ADA, None)
    await house.releases.change("digits", release(v3=100), ADA, None)
    back = await house.releases.rollback("digits", None, ADA, 3)
    assert (back.number, house.weights) == (4, {"1": 100})
    assert back.reason == "back to revision 2: because"
    await house.releases.rollback("digits", 1, ADA, None)
    assert house.weights == {"2": 100}
    with pytest.raises(RevisionNotFound):
        await house.releases.rollback("digits", 77, ADA, None)
    with pytest.raises(RevisionConflict):
        await house.releases.rollback("digits", 1, ADA, 2)


async def test_rollback_moves_no_label_to_a_version_that_is_not_ready(house: House) -> None:
    labelled = release(v2=100).model_copy(update={"labels": {"old": "1"}})
    await house.releases.change("digits", labelled, ADA, None)
    await house.releases.change("digits", release(v2=100), ADA, None)
    house.ready = {"2", "3"}
    with pytest.raises(NotReady, match="labels"):
        await house.releases.rollback("digits", 2, ADA, None)
    house.ready = {"1", "2"}
    assert (await house.releases.rollback("digits", 2, ADA, None)).release.labels == {"old": "1"}


async def test_a_healthy_canary_is_promoted_and_stays(house: House) -> None:
    house.deploy(candidates=[{"version": "3", "weight": 100}], strategy=QUICK)
    await house.seconds(1, v2=(50, 0))
    assert house.weights == {"2": 50, "3": 50}
    await house.seconds(12, v2=(25, 0), v3=(25, 0))
    assert house.weights == {"3": 100}
    assert await house.state() == "promoted"
    await house.seconds(3, v3=(50, 0))
    assert house.weights == {"3": 100}
    actors = [each.actor for each in await house.releases.revisions("digits", 10, None)]
    assert actors[-1] == "config"
    assert "rollout" in actors


async def test_a_promotion_moves_the_label_of_the_stable_version(house: House) -> None:
    house.deploy(
        candidates=[{"version": "3", "weight": 100}, {"version": "2", "weight": 0}],
        labels={"stable": "2", "canary": "3"},
        strategy=QUICK,
    )
    await house.seconds(14, v2=(25, 0), v3=(25, 0))
    assert await house.state() == "promoted"
    assert house.releases.release("digits").labels == {"stable": "3", "canary": "3"}


async def test_a_broken_canary_goes_back_by_itself(house: House) -> None:
    house.deploy(candidates=[{"version": "3", "weight": 100}], strategy=QUICK)
    await house.seconds(5, v2=(50, 0))
    assert house.weights == {"2": 50, "3": 50}
    await house.seconds(4, v2=(25, 0), v3=(25, 25))
    assert house.weights == {"2": 100}
    rollout = (await house.releases.rollouts("digits", 1))[0]
    assert rollout.state == "rolled_back"
    assert "failed" in rollout.reason
    assert rollout.evidence["error_rate"]
    await house.seconds(3, v2=(50, 0))  # the config still asks for 3, and is not asked again
    assert house.weights == {"2": 100}


async def test_a_rollout_survives_a_restart_in_the_middle_of_a_step(house: House) -> None:
    house.deploy(candidates=[{"version": "3", "weight": 100}], strategy={**QUICK, "bake_s": 6})
    await house.seconds(2, v2=(50, 0))
    assert house.weights == {"2": 50, "3": 50}
    await house.seconds(2, v2=(25, 0), v3=(25, 0))
    await house.restart()
    assert house.weights == {"2": 50, "3": 50}
    assert await house.state() == "progressing"
    await house.seconds(3, v2=(25, 0), v3=(25, 25))
    assert house.weights == {"2": 100}


async def test_a_rollout_that_cannot_be_read_begins_anew(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.deploy(candidates=[{"version": "3", "weight": 100}], strategy=QUICK)
    await house.seconds(1, v2=(50, 0))
    row = (await house.store.active_rollouts())["digits"]
    await house.store.save_rollout(row.model_copy(update={"memory": {"of": "another release"}}))
    await house.restart()
    assert "begins anew" in caplog.text
    assert house.weights == {"2": 100}
    await house.seconds(1, v2=(50, 0))
    assert house.weights == {"2": 50, "3": 50}
    await house.seconds(12, v2=(25, 0), v3=(25, 0))
    assert await house.state() == "promoted"
    assert house.weights == {"3": 100}


async def test_standings_tell_the_weights_in_force_and_the_rollout(house: House) -> None:
    (standing,) = await house.releases.standings()
    assert (standing.revision.number, standing.rollout) == (1, None)
    assert standing.revision.config_digest == DIGITS.release.digest
    house.deploy(candidates=[{"version": "3", "weight": 100}], strategy=QUICK)
    await house.seconds(2, v2=(50, 0))
    (standing,) = await house.releases.standings()
    assert standing.rollout is not None
    assert standing.rollout.state == "progressing"
    assert standing.revision.release.weights == {"2": 50, "3": 50}
    assert standing.revision.config_digest == house.model.release.digest


async def test_people_steer(house: House) -> None:
    with pytest.raises(Conflict):
        await house.releases.steer("digits", "pause", ADA)
    house.deploy(candidates=[{"version": "3", "weight": 100}], strategy={**QUICK, "bake_s": 60})
    await house.seconds(2, v2=(50, 0))
    paused = await house.releases.steer("digits", "pause", ADA)
    assert paused.state == "paused"
    assert type(paused) is Rollout  # not what only ModelRouter needs
    with pytest.raises(Conflict, match="paused"):
        await house.releases.steer("digits", "pause", ADA)
    assert (await house.releases.steer("digits", "resume", ADA)).state == "progressing"
    assert (await house.releases.steer("digits", "promote", ADA)).state == "promoted"
    assert house.weights == {"3": 100}
    assert (await house.releases.live("digits")).actor == "ada"


async def test_what_cannot_be_stored_is_not_done_but_for_going_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.deploy(candidates=[{"version": "3", "weight": 100}], strategy={**QUICK, "bake_s": 60})
    await house.seconds(62, v2=(50, 0))
    paused = await house.releases.steer("digits", "pause", ADA)
    assert set(paused.model_dump()) == set(Rollout.model_fields)
    verbs: tuple[Steering, ...] = ("resume", "promote")
    with monkeypatch.context() as patch:
        for name in ("append", "save_rollout"):
            patch.setattr(ReleaseStore, name, away)
        for verb in verbs:
            with pytest.raises(StoreUnavailable):
                await house.releases.steer("digits", verb, ADA)
            assert await house.state() == "paused"
            assert house.weights == {"2": 50, "3": 50}
        assert (await house.releases.steer("digits", "rollback", ADA)).state == "rolled_back"
        assert house.weights == {"2": 100}
    await house.releases.tick()
    assert (await house.releases.live("digits")).release.serving == {"2"}
    assert await house.state() == "rolled_back"


async def test_what_shall_be_at_once_is_no_rollout(house: House) -> None:
    made = await house.releases.change("digits", release(QUICK, v3=100), ADA, None, True)
    assert (made.number, house.weights) == (2, {"3": 100})
    assert not await house.releases.rollouts("digits", 1)


async def test_other_weights_end_a_rollout(house: House) -> None:
    house.deploy(candidates=[{"version": "3", "weight": 100}], strategy={**QUICK, "bake_s": 60})
    await house.seconds(2, v2=(50, 0))
    assert await house.state() == "progressing"
    await house.releases.change("digits", release(v1=100), ADA, None)
    assert house.weights == {"1": 100}
    assert await house.state() == "rolled_back"
    await house.seconds(2, v1=(50, 0))
    assert house.weights == {"1": 100}


async def test_a_rollout_goes_back_also_while_the_database_is_away(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.deploy(candidates=[{"version": "3", "weight": 100}], strategy={**QUICK, "bake_s": 4})
    await house.seconds(7, v2=(50, 0))
    assert house.weights == {"2": 50, "3": 50}
    with monkeypatch.context() as patch:
        patch.setattr(ReleaseStore, "append", away)
        await house.seconds(4, v2=(25, 0), v3=(25, 25))
        assert house.weights == {"2": 100}
        with pytest.raises(StoreUnavailable):
            await house.releases.change("digits", release(v1=100), ADA, None)
    await house.seconds(1, v2=(50, 0))
    assert await house.state() == "rolled_back"
    assert house.weights == {"2": 100}
    assert (await house.releases.live("digits")).release.serving == {"2"}


async def test_a_step_that_cannot_be_stored_is_not_in_force_and_the_guards_go_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = {**QUICK, "steps": [20, 50], "bake_s": 4}
    house.deploy(candidates=[{"version": "3", "weight": 100}], strategy=strategy)
    await house.seconds(2, v2=(50, 0))
    assert house.weights == {"2": 80, "3": 20}
    with monkeypatch.context() as patch:
        patch.setattr(ReleaseStore, "append", away)
        await house.seconds(6, v2=(25, 0), v3=(25, 0))
        assert house.weights == {"2": 80, "3": 20}
        await house.seconds(4, v2=(25, 0), v3=(25, 25))
        assert house.weights == {"2": 100}
    await house.seconds(1, v2=(50, 0))
    assert await house.state() == "rolled_back"
    assert (await house.releases.live("digits")).release.serving == {"2"}


async def test_a_rollout_that_went_back_stays_ended_whatever_is_stored_next(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.deploy(candidates=[{"version": "3", "weight": 100}], strategy={**QUICK, "bake_s": 60})
    await house.seconds(62, v2=(50, 0))
    with monkeypatch.context() as patch:
        patch.setattr(ReleaseStore, "append", away)
        await house.seconds(4, v2=(25, 0), v3=(25, 25))
        assert house.weights == {"2": 100}
    await house.releases.change("digits", release(v1=100), ADA, None)
    await house.restart()
    assert house.weights == {"1": 100}
    assert await house.state() == "rolled_back"
    await house.releases.change("digits", release(QUICK, v2=100), ADA, None)
    assert await house.state() == "pending"


async def test_what_was_stored_although_nobody_heard_of_it_is_found_out(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = ReleaseStore.append

    async def late(self: ReleaseStore, *arguments: Any, **more: Any) -> None:
        await append(self, *arguments, **more)
        raise StoreUnavailable("no answer in time")

    with monkeypatch.context() as patch:
        patch.setattr(ReleaseStore, "append", late)
        house.deploy(candidates=[{"version": "3", "weight": 100}], strategy=QUICK)
        await house.seconds(3, v2=(50, 0))
        assert house.weights == {"2": 50, "3": 50}
        await house.seconds(8, v2=(25, 0), v3=(25, 0))
        assert house.weights == {"3": 100}
        assert await house.state() == "promoted"
        with pytest.raises(StoreUnavailable):
            await house.releases.change("digits", release(v1=100), ADA, None)
        await house.releases.tick()
        assert house.weights == {"1": 100}
    before = (await house.releases.live("digits")).number
    assert (await house.releases.change("digits", release(v2=100), ADA, before)).number > before


async def test_a_pause_that_was_stored_although_nobody_heard_of_it_is_one(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.deploy(candidates=[{"version": "3", "weight": 100}], strategy={**QUICK, "bake_s": 60})
    await house.seconds(2, v2=(50, 0))
    save = ReleaseStore.save_rollout

    async def late(self: ReleaseStore, *arguments: Any) -> None:
        await save(self, *arguments)
        raise StoreUnavailable("no answer in time")

    with monkeypatch.context() as patch:
        patch.setattr(ReleaseStore, "save_rollout", late)
        with pytest.raises(StoreUnavailable):
            await house.releases.steer("digits", "pause", ADA)
    await house.releases.tick()
    assert await house.state() == "paused"
    assert (await house.releases.steer("digits", "resume", ADA)).state == "progressing"


async def test_traffic_is_back_before_the_database_has_answered(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.deploy(candidates=[{"version": "3", "weight": 100}], strategy={**QUICK, "bake_s": 60})
    await house.seconds(62, v2=(50, 0))
    assert house.weights == {"2": 50, "3": 50}
    seen: list[dict[str, int]] = []
    house.on_publish = lambda: seen.append(house.weights)

    async def fail(*_: Any, **__: Any) -> Any:
        seen.append({})
        raise StoreUnavailable("gone")

    monkeypatch.setattr(ReleaseStore, "append", fail)
    await house.seconds(4, v2=(25, 0), v3=(25, 25))
    assert seen[:2] == [{"2": 100}, {}]


async def test_a_rollout_that_cannot_be_saved_holds_up_no_other(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.deploy(candidates=[{"version": "3", "weight": 100}], strategy={**QUICK, "bake_s": 60})
    first = {"a": DIGITS.model_copy(update={"release": house.model.release})}
    house.releases.configure({"a": DIGITS})
    await house.releases.tick()
    house.releases.configure({**first, "digits": DIGITS})
    await house.releases.tick()
    house.releases.configure({**first, "digits": house.model})
    await house.seconds(62, v2=(50, 0))
    assert house.weights == {"2": 50, "3": 50}
    monkeypatch.setattr(ReleaseStore, "save_rollout", away)
    for sequence in range(1, 5):
        arms = {VersionKey("a", "3"): ArmCounts(25, 0, (*[0] * FAST, 25))}
        house.releases.take(IngressReport("of a", sequence, arms, {}))
        await house.seconds(1, v2=(25, 0), v3=(25, 25))
    assert house.weights == {"2": 100}


async def test_rollback_takes_a_whole_rollout_back(house: House) -> None:
    house.deploy(candidates=[{"version": "3", "weight": 100}], strategy=QUICK)
    await house.seconds(15, v2=(25, 0), v3=(25, 0))
    assert await house.state() == "promoted"
    back = await house.releases.rollback("digits", None, ADA, None)
    assert back.reason.startswith("back to revision 1")
    assert house.weights == {"2": 100}


async def test_a_version_without_traffic_goes_and_live_weights_stay(house: House) -> None:
    await house.releases.change("digits", release(v2=90, v1=0, v3=10), ADA, None)
    versions = {name: each for name, each in DIGITS.versions.items() if name != "1"}
    house.model = DIGITS.model_copy(update={"versions": versions})
    house.releases.configure({"digits": house.model})
    await house.releases.tick()
    assert house.weights == {"2": 90, "3": 10}
    assert "1" not in house.releases.release("digits").weights


async def test_a_version_without_traffic_that_goes_ends_no_rollout(house: House) -> None:
    await house.releases.change("digits", release(QUICK, v3=100, v1=0), ADA, None)
    await house.seconds(1, v2=(50, 0))
    house.undeploy("1")
    await house.seconds(1, v2=(25, 0), v3=(25, 0))
    assert await house.state() == "progressing"
    await house.seconds(12, v2=(25, 0), v3=(25, 0))
    assert await house.state() == "promoted"
    assert house.releases.release("digits").weights == {"3": 100, "2": 0}


async def test_a_canary_begins_although_the_version_of_before_the_last_one_goes(
    house: House,
) -> None:
    house.deploy(candidates=[{"version": "3", "weight": 100}], strategy=QUICK)
    await house.seconds(15, v2=(25, 0), v3=(25, 0))
    assert await house.state() == "promoted"
    house.deploy(candidates=[{"version": "1", "weight": 100}], strategy=QUICK)
    house.undeploy("2")
    await house.seconds(3, v3=(25, 0), v1=(25, 0))
    assert await house.state() == "progressing"
    await house.seconds(12, v3=(25, 0), v1=(25, 0))
    assert await house.state() == "promoted"
    assert house.weights == {"1": 100}


async def test_outcomes_make_a_report(house: House) -> None:
    labelled = {"kind": "label", "output": "logits"}
    house.deploy(
        candidates=[{"version": "2", "weight": 50}, {"version": "3", "weight": 50}],
        outcomes=labelled,
    )
    await house.seconds(2)
    exposures = tuple(
        Exposure(f"r{n}", VersionKey("digits", "23"[n % 2]), house.now, (n % 2,))
        for n in range(400)
    )
    house.releases.take(IngressReport("other", 1, {}, {}, exposures))
    house.releases.take(IngressReport("other", 1, {}, {}, exposures))  # delivered twice
    await house.releases.tick()
    reported = [Outcome(request_id=f"r{n}", label=1) for n in range(400)]
    receipts = await house.releases.record("digits", reported)
    assert {each.status for each in receipts} == {"counted"}
    again = await house.releases.record("digits", reported[:1])
    assert again[0].status == "duplicate"
    report = await house.releases.report("digits")
    assert report["winner"] == "3"
    assert [arm["outcomes"] for arm in report["arms"]] == [200, 200]
    with pytest.raises(InvalidInput, match="label"):
        await house.releases.record("digits", [Outcome(request_id="x", number=1.0)])


async def test_the_last_answers_of_a_version_without_traffic_are_no_arm(house: House) -> None:
    house.deploy(
        candidates=[
            {"version": "1", "weight": 0},
            {"version": "2", "weight": 50},
            {"version": "3", "weight": 50},
        ],
        outcomes={"kind": "label", "output": "logits"},
    )
    await house.seconds(2)
    arms = ["1"] * 5 + ["2", "3"] * 200
    exposures = tuple(
        Exposure(f"r{n}", VersionKey("digits", arm), house.now, (int(arm == "3"),))
        for n, arm in enumerate(arms)
    )
    house.releases.take(IngressReport("other", 1, {}, {}, exposures))
    reported = [Outcome(request_id=f"r{n}", label=1) for n in range(len(arms))]
    await house.releases.record("digits", reported)
    report = await house.releases.report("digits")
    assert [arm["version"] for arm in report["arms"]] == ["2", "3"]
    assert report["winner"] == "3"


async def test_a_comparison_is_as_old_as_its_arms_however_often_weights_have_changed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiments_module, "_PAGE", 2)
    sinces = []
    for share in (50, 60, 70, 80, 90):
        weights = release(v2=100 - share, v3=share).model_dump()
        wanted = Release.model_validate({**weights, "outcomes": {"kind": "reward"}})
        made = await house.releases.change("digits", wanted, ADA, None)
        sinces.append((await house.releases.report("digits"))["since"])
        if share == 50:
            first = made.created_at.timestamp()
    await house.restart()
    sinces.append((await house.releases.report("digits"))["since"])
    assert sinces == [first] * 6


async def test_exposures_wait_for_the_database_but_not_without_end(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiments_module, "MAX_WAITING", 10)
    monkeypatch.setattr(experiments_module, "CHUNK", 4)
    key = VersionKey("digits", "2")
    with monkeypatch.context() as patch:
        patch.setattr(ReleaseStore, "record_exposures", away)
        for sequence in range(1, 4):
            new = tuple(Exposure(f"{sequence}.{n}", key, house.now) for n in range(8))
            house.releases.take(IngressReport("other", sequence, {}, {}, new))
            await house.releases.tick()
    await house.releases.tick()
    assert (await house.store.aggregates("digits", 0))["2"].exposures == 10


async def test_outcomes_nobody_asked_for(house: House) -> None:
    with pytest.raises(InvalidInput, match="no outcomes"):
        await house.releases.record("digits", [Outcome(request_id="x", label=1)])
    with pytest.raises(InvalidInput, match="no outcomes"):
        await house.releases.report("digits")


async def test_disagreements_can_be_read_newest_first(house: House) -> None:
    two, three = VersionKey("digits", "2"), VersionKey("digits", "3")
    found = tuple(Disagreement(str(n), two, three, float(n), {"logits": "a|b"}) for n in range(5))
    house.releases.take(IngressReport("other", 1, {}, {}, (), found))
    read = await house.releases.disagreements("digits", 2)
    assert [each["request_id"] for each in read] == ["4", "3"]
    assert read[0]["shadow"] == "3"


async def test_a_version_that_is_gone_takes_the_live_release_with_it(house: House) -> None:
    await house.releases.change("digits", release(v2=90, v1=10), ADA, None)
    versions = {name: each for name, each in DIGITS.versions.items() if name != "1"}
    house.model = DIGITS.model_copy(update={"versions": versions})
    house.releases.configure({"digits": house.model})
    await house.releases.tick()
    assert house.weights == {"2": 100}
    assert isinstance(house.model, ModelConfig)
