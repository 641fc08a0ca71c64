"""Transitions, on a simulated clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from serve_app.domain.arms import ArmCounts, IngressReport, ShadowCounts
from serve_app.domain.control import Author, RolloutState, Steering
from serve_app.domain.inference import VersionKey
from serve_app.domain.release import DisagreementGuard, Guards, OutcomeGuard, Outcomes, Strategy
from serve_app.evidence import Moments
from serve_app.rollout import Change, RolloutMachine, Terms, promoted_labels
from tests.unit.rollout.simulation import MODEL, START, Behaviour, World, again, rollout, run

ANA = Author(actor="ana", reason="looks good")
BOTH = {"1", "2"}
CANARY = Strategy(type="canary", steps=(10, 50), bake_s=20)
ORIGIN, TARGET = {"1": 100}, {"1": 0, "2": 100}

ALLOWED: dict[RolloutState, set[RolloutState]] = {
    "pending": {"pending", "progressing", "paused", "promoted", "rolled_back"},
    "progressing": {"progressing", "paused", "promoted", "rolled_back"},
    "paused": {"pending", "progressing", "promoted", "rolled_back"},
    "promoted": set(),
    "rolled_back": set(),
}


def healthy(seed: int = 0, rate: float = 50.0) -> World:
    return World(seed, {"1": Behaviour(), "2": Behaviour()}, rate=rate)


def machine(strategy: Strategy = CANARY) -> RolloutMachine:
    return RolloutMachine(MODEL, Terms(origin=ORIGIN, target=TARGET, strategy=strategy), START)


def report(sequence: int, requests: int = 0, faults: int = 0, version: str = "2") -> IngressReport:
    arms = {VersionKey(MODEL, version): ArmCounts(requests, faults, ())}
    return IngressReport("a", sequence, arms, {})


def test_pending_until_the_new_version_is_ready() -> None:
    found = machine()
    for second in range(1, 100):
        assert found.tick(START + second, {"1"}) is None
    assert found.progress.state == "pending"
    assert found.weights == {"1": 100, "2": 0}
    change = found.tick(START + 100, BOTH)
    assert change is not None
    assert (change.state, change.step, change.weights) == ("progressing", 0, {"1": 90, "2": 10})
    assert change.reason == "version 2 is ready"


def test_a_step_needs_its_time_and_its_samples() -> None:
    found = machine()
    found.tick(START, BOTH)
    found.observe(report(1, requests=200))
    for second in range(1, 20):
        found.observe(report(1 + second))
        assert found.tick(START + second, BOTH) is None
    change = found.tick(START + 20, BOTH)
    assert change is not None
    assert (change.step, change.weights) == (1, {"1": 50, "2": 50})
    assert change.reason == "step 10 % has held for 20 s: version 2 answered 200 requests"
    found.observe(report(30, requests=99))
    assert found.tick(START + 41, BOTH) is None
    found.observe(report(31, requests=1))
    change = found.tick(START + 42, BOTH)
    assert change is not None
    assert change.step == 2


def test_bake_time_is_wall_time_even_if_the_router_was_away() -> None:
    found = machine()
    found.tick(START, BOTH)
    found.observe(report(1, requests=200))
    found = again(found)
    change = found.tick(START + 3600, BOTH)
    assert change is not None
    assert (change.state, change.step) == ("progressing", 1)


def test_an_absence_of_the_router_is_no_silence_and_no_lack_of_patience() -> None:
    found = machine()
    found.tick(START, BOTH)
    assert again(found).tick(START + 3600, BOTH) is None


def test_a_clock_that_is_set_back_does_no_harm() -> None:
    found = machine()
    found.tick(START, BOTH)
    found.observe(report(1, requests=200))
    assert found.tick(START - 3600, BOTH) is None
    assert found.progress.watched == 0


def test_without_reports_it_pauses() -> None:
    world = healthy()
    found = rollout(world, CANARY, origin=ORIGIN, target=TARGET)
    found, _ = run(world, found, 5)
    changes = [found.tick(world.now + second, BOTH) for second in range(1, 20)]
    (change,) = [change for change in changes if change is not None]
    assert (change.state, change.weights) == ("paused", None)
    assert change.reason == "no ingress has reported for 11 s"
    assert changes.index(change) == 10


def test_a_starved_canary_pauses_and_goes_on_when_resumed() -> None:
    world = healthy(rate=0.5)

    def more(world: World) -> None:
        world.rate = 200.0

    found = rollout(world, CANARY, origin=ORIGIN, target=TARGET)
    found, changes = run(world, found, 300, events={150: more, 151: "resume"})
    at, paused = changes[1]
    assert at == pytest.approx(102)
    assert paused.state == "paused"
    answered = paused.evidence["step"]["answered"]
    assert paused.reason == (
        f"version 2 answered {answered} of the 100 requests that step 10 % needs, in 101 s"
    )
    assert [change.state for _, change in changes[2:4]] == ["progressing", "progressing"]
    assert changes[2][1].reason == "resumed by ana"
    assert changes[2][1].step == 0
    assert changes[3][0] - changes[2][0] == pytest.approx(20)
    assert changes[-1][1].state == "promoted"


@pytest.mark.parametrize(("seconds", "back"), [(4, False), (7, True)])
def test_a_version_that_is_lost_for_longer_is_rolled_back(seconds: int, back: bool) -> None:
    found = machine()
    found.tick(START, BOTH)
    changes = []
    for second in range(1, 15):
        found.observe(report(second))
        changes.append(found.tick(START + second, {"1"} if second <= seconds else BOTH))
    changed = [change for change in changes if change is not None]
    assert bool(changed) == back
    if back:
        (change,) = changed
        assert (change.state, change.weights) == ("rolled_back", {"1": 100, "2": 0})
        assert change.reason == "version 2 has no ready replica"
        assert changes.index(change) == 5


def test_it_stays_where_it_is_while_there_is_nothing_to_go_back_to() -> None:
    found = machine()
    found.tick(START, BOTH)
    found.observe(report(1, requests=50, faults=50))
    change = found.tick(START + 1, {"2"})
    assert change is not None
    assert (change.state, change.weights) == ("paused", None)
    assert change.reason.endswith("because no former version has a ready replica")
    assert found.tick(START + 2, {"2"}) is None
    change = found.tick(START + 3, BOTH)
    assert change is not None
    assert (change.state, change.weights) == ("rolled_back", {"1": 100, "2": 0})


def test_a_broken_guard_ends_a_paused_rollout_too() -> None:
    found = machine()
    found.tick(START, BOTH)
    found.steer("pause", ANA, START + 1, BOTH)
    found.observe(report(1, requests=37, faults=14))
    change = found.tick(START + 2, BOTH)
    assert change is not None
    assert change.state == "rolled_back"
    assert change.reason == (
        "error rate of version 2: 14 of 37 requests failed (limit 5 %), version 1: no requests; "
        "the chance of such a record with a version that keeps the limit is below 0.000001"
    )
    assert not change.evidence["error_rate"]["holds"]


def test_a_shadow_that_disagrees_ends_a_rollout_before_it_has_traffic() -> None:
    guards = Guards(disagreement=DisagreementGuard(max=0.05))
    found = machine(CANARY.model_copy(update={"guards": guards}))
    shadows = {VersionKey(MODEL, "2"): ShadowCounts(100, 40, 0, 0)}
    found.observe(IngressReport("a", 1, {}, shadows))
    change = found.tick(START + 1, BOTH)
    assert change is not None
    assert (change.state, change.step, change.weights) == ("rolled_back", -1, None)
    assert "version 2: 40 of 100 mirrored answers differed (limit 5 %)" in change.reason


def seconds(found: RolloutMachine, first: int, last: int) -> list[Change]:
    """Each second ten requests of the new version are reported; what happens meanwhile."""
    changes = []
    for second in range(first, last):
        found.observe(report(second, requests=10))
        changes.append(found.tick(START + second, BOTH))
    return [change for change in changes if change is not None]


def test_without_outcomes_a_guard_on_them_pauses_the_rollout() -> None:
    guards = Guards(error_rate=None, latency=(), outcome=OutcomeGuard(margin=0.1))
    strategy = Strategy(type="canary", steps=(50,), bake_s=10, min_samples=5, guards=guards)
    rewards = Outcomes(kind="reward")
    terms = Terms(origin=ORIGIN, target=TARGET, strategy=strategy, outcomes=rewards)
    found = RolloutMachine(MODEL, terms, START)
    found.tick(START, BOTH)
    found.record({"2": Moments.of([1.0, 0.5, 1.0])}, through=3)
    (change,) = seconds(found, 1, 80)
    assert (change.state, change.step, change.weights) == ("paused", 0, None)
    assert change.reason == (
        "version 2 has 3 of the 5 outcomes that the guard on outcome needs, in 51 s"
    )
    found.record({"2": Moments.of([1.0, 1.0])}, through=5)
    found.steer("resume", ANA, START + 80, BOTH)
    assert [each.step for each in seconds(found, 81, 95)] == [1]


def test_blue_green_waits_for_mirrored_answers_where_a_guard_is_on_them() -> None:
    guards = Guards(error_rate=None, latency=(), disagreement=DisagreementGuard(max=0.05))
    strategy = Strategy(type="blue_green", bake_s=10, min_samples=50, guards=guards)
    shadows = {VersionKey(MODEL, "2"): ShadowCounts(50, 0, 0, 0)}
    found = machine(strategy)
    assert seconds(found, 1, 40) == []
    found.observe(IngressReport("b", 1, {}, shadows))
    change = found.tick(START + 40, BOTH)
    assert change is not None
    assert (change.state, change.weights) == ("progressing", {"1": 0, "2": 100})
    starved = machine(strategy)
    (change,) = seconds(starved, 1, 80)
    assert (change.state, change.step, change.weights) == ("paused", -1, None)
    assert change.reason.startswith("version 2 has 0 of the 50 mirrored answers that the guard on")


def test_new_traffic_from_before_the_rollout_is_no_evidence() -> None:
    found = machine()
    found.observe(report(1, requests=100, faults=100))
    found.tick(START, BOTH)
    assert found.tick(START + 1, BOTH) is None
    assert found.evidence()["error_rate"]["new"] == {"requests": 0, "failed": 0}


def test_other_models_and_versions_are_no_evidence() -> None:
    found = machine()
    found.tick(START, BOTH)
    arms = {
        VersionKey("other", "2"): ArmCounts(100, 100, ()),
        VersionKey(MODEL, "3"): ArmCounts(100, 100, ()),
    }
    found.observe(IngressReport("a", 1, arms, {}))
    assert found.evidence()["error_rate"]["new"]["requests"] == 0


@pytest.mark.parametrize(
    ("arm", "shadow"),
    [
        (ArmCounts(1, 2, ()), None),
        (ArmCounts(1, 0, (0,) * 10_000), None),
        (None, ShadowCounts(1, 2, 0, 0)),
    ],
)
def test_a_report_that_cannot_be_does_no_harm(
    arm: ArmCounts | None, shadow: ShadowCounts | None
) -> None:
    found, key = machine(), VersionKey(MODEL, "2")
    found.tick(START, BOTH)
    before = found.evidence()
    arms = {key: arm} if arm is not None else {}
    shadows = {key: shadow} if shadow is not None else {}
    with pytest.raises(ValueError, match="cannot be"):
        found.observe(IngressReport("a", 1, arms, shadows))
    assert found.tick(START, BOTH) is None
    assert found.evidence() == before


def test_blue_green_watches_the_former_version_first() -> None:
    world = healthy()
    found = rollout(world, Strategy(type="blue_green", bake_s=30), origin=ORIGIN, target=TARGET)
    found, changes = run(world, found, 100)
    assert [(at, change.state) for at, change in changes] == [
        (30, "progressing"), (60, "promoted"),
    ]  # fmt: skip
    limits = changes[-1][1].evidence["error_rate"]["limits"]
    assert "from the former record of" in limits[-1]["limit"]


def test_blue_green_without_comparisons_does_not_wait() -> None:
    guards = Guards(error_rate=None, latency=())
    found = machine(Strategy(type="blue_green", guards=guards))
    change = found.tick(START, BOTH)
    assert change is not None
    assert change.weights == {"1": 0, "2": 100}


@pytest.mark.parametrize(
    ("verb", "state", "weights"),
    [
        ("promote", "promoted", {"1": 0, "2": 100}),
        ("rollback", "rolled_back", {"1": 100, "2": 0}),
        ("pause", "paused", None),
    ],
)
def test_steering(verb: Steering, state: RolloutState, weights: dict[str, int] | None) -> None:
    found = machine()
    found.tick(START, BOTH)
    change = found.steer(verb, ANA, START + 1, BOTH)
    assert (change.state, change.weights, change.actor) == (state, weights, "ana")
    assert change.reason.endswith("by ana: looks good")


def test_steering_before_the_first_step() -> None:
    found = machine()
    assert found.steer("pause", ANA, START, {"1"}).state == "paused"
    assert found.tick(START + 1, BOTH) is None
    assert found.steer("resume", ANA, START + 2, BOTH).state == "pending"
    with pytest.raises(ValueError, match="version 2 has no ready replica"):
        found.steer("promote", ANA, START + 3, {"1"})
    assert found.steer("rollback", ANA, START + 4, BOTH).weights is None


def test_promotion_at_the_last_step_publishes_nothing_new() -> None:
    world = healthy()
    found = rollout(world, CANARY, origin=ORIGIN, target=TARGET)
    _, changes = run(world, found, 100)
    assert [change.weights for _, change in changes] == [
        {"1": 90, "2": 10}, {"1": 50, "2": 50}, {"1": 0, "2": 100}, None,
    ]  # fmt: skip


@pytest.mark.parametrize("prepare", [(), ("pause",)])
def test_verbs_that_do_not_fit(prepare: tuple[Steering, ...]) -> None:
    found = machine()
    for verb in prepare:
        found.steer(verb, ANA, START, BOTH)
    with pytest.raises(ValueError, match="the rollout is"):
        found.steer(prepare[0] if prepare else "resume", ANA, START, BOTH)


@pytest.mark.parametrize("wrong", [{"guards": []}, {"progress": {"step": 1}}, {"terms": {}}])
def test_states_that_cannot_be_read(wrong: dict[str, object]) -> None:
    state = machine().to_state()
    with pytest.raises(ValueError, match="not the state of a rollout"):
        RolloutMachine.from_state({**state, **wrong})
    with pytest.raises(ValueError, match="not the state of a rollout"):
        RolloutMachine.from_state({key: state[key] for key in state if key not in wrong})


def test_it_gives_way_to_other_weights() -> None:
    found = machine()
    found.tick(START, BOTH)
    change = found.give_way(ANA, START + 1)
    assert (change.state, change.weights) == ("rolled_back", None)
    assert change.reason == "ana has put other weights in force"
    with pytest.raises(ValueError, match="rolled back"):
        found.give_way(ANA, START + 2)


@pytest.mark.parametrize("target", [{"1": 100}, {"1": 50, "2": 40}])
def test_what_is_no_rollout(target: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Terms(origin=ORIGIN, target=target, strategy=CANARY)
    with pytest.raises(ValidationError, match="needs other weights"):
        Terms(origin=ORIGIN, target=TARGET, strategy=Strategy(type="all_at_once"))


def test_reports_that_are_repeated_or_come_in_another_order_change_nothing() -> None:
    def evidence(disturb: Callable[[list[IngressReport]], list[IngressReport]]) -> object:
        world = healthy(seed=3)
        found = rollout(world, CANARY, origin=ORIGIN, target=TARGET)
        found.tick(world.now, BOTH)
        reports = [each for _ in range(30) for each in world.second()[0]]
        for each in disturb(reports):
            found.observe(each)
        found.tick(world.now, BOTH)
        return found.evidence()

    once = evidence(lambda reports: reports)
    assert evidence(lambda reports: [each for each in reports for _ in range(2)]) == once
    assert evidence(lambda reports: reports[::-1] + reports) == once


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"stable": "1", "canary": "2"}, {"stable": "2", "canary": "2"}),
        ({"stable": "1", "canary": "3"}, {"stable": "1", "canary": "3"}),
        ({"stable": "1"}, {"stable": "1"}),
        ({"stable": "1", "canary": "2", "old": "1"}, {"stable": "2", "canary": "2", "old": "1"}),
    ],
)
def test_labels_after_a_promotion(labels: dict[str, str], expected: dict[str, str]) -> None:
    terms = Terms(origin=ORIGIN, target=TARGET, strategy=CANARY)
    assert promoted_labels(terms, labels) == expected


def test_stable_stays_on_a_version_that_keeps_traffic() -> None:
    terms = Terms(origin=ORIGIN, target={"1": 50, "2": 50}, strategy=CANARY)
    assert promoted_labels(terms, {"stable": "1", "canary": "2"})["stable"] == "1"


EVENTS = st.one_of(
    st.tuples(st.just("tick"), st.floats(0.1, 30), st.sampled_from([(), ("1",), ("2",), (1, 2)])),
    st.tuples(st.just("report"), st.integers(0, 150), st.integers(0, 2)),
    st.tuples(st.sampled_from(["promote", "pause", "resume", "rollback"]), st.none(), st.none()),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, max_size=40), st.sampled_from(["canary", "linear", "blue_green"]))
def test_whatever_happens(events: list[tuple[str, object, object]], kind: str) -> None:
    terms = {"origin": {"1": 70, "2": 30}, "target": {"1": 20, "2": 20, "3": 60}}
    strategy = {"type": kind, "bake_s": 10, "min_samples": 50}
    found = RolloutMachine(MODEL, Terms.model_validate({**terms, "strategy": strategy}), START)
    now, ready, in_force = START, {"1", "2", "3"}, found.weights
    for number, (what, first, second) in enumerate(events):
        before = found.progress.state
        if what == "tick":
            assert isinstance(first, float)
            assert isinstance(second, tuple)
            now, ready = now + first, {"3", *map(str, second)}
            change = found.tick(now, ready)
        elif what == "report":
            assert isinstance(first, int)
            assert isinstance(second, int)
            found.observe(report(number, first, min(first, second), version="3"))
            continue
        else:
            try:
                change = found.steer(cast(Steering, what), ANA, now, ready)
            except ValueError:
                continue
        after = found.progress.state
        assert (change is not None) or after == before
        if change is not None:
            assert after == change.state
            assert after in ALLOWED[before]
            in_force = dict(change.weights) if change.weights is not None else in_force
            assert json.loads(json.dumps(change.evidence, allow_nan=False))
        assert in_force == found.weights
        assert sum(found.weights.values()) == 100
        assert found.progress.step < len(found.terms.steps)
        found = again(found)
