"""Whole rollouts under simulated traffic: 50 requests/s through two ingresses.

What the simulations gave when they were written stands in docs/releases.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from serve_app.domain.control import Steering
from serve_app.domain.release import (
    DisagreementGuard,
    ErrorGuard,
    Guards,
    LatencyGuard,
    OutcomeGuard,
    Outcomes,
    Strategy,
)
from serve_app.rollout import Change, RolloutMachine
from tests.unit.rollout.simulation import Behaviour, World, again, rollout, run

ORIGIN, TARGET = {"1": 100}, {"1": 0, "2": 100}
LABELS = Outcomes(kind="label", output="logits")
ALL_GUARDS = Guards(
    error_rate=ErrorGuard(max=0.05, ratio=2.0),
    latency=(LatencyGuard(quantile=0.5, ratio=1.5), LatencyGuard(quantile=0.99, ratio=1.5)),
    disagreement=DisagreementGuard(max=0.05),
    outcome=OutcomeGuard(),
)


def begin(
    seed: int,
    new: Behaviour,
    *,
    steps: tuple[int, ...] = (5, 25, 50),
    bake_s: float = 60.0,
    guards: Guards = ALL_GUARDS,
    former: Behaviour = Behaviour(),  # noqa: B008  (frozen)
    outcomes: Outcomes = LABELS,
    kind: str = "canary",
) -> tuple[World, RolloutMachine]:
    world = World(seed, {"1": former, "2": new}, mirrored={"2": 0.2}, outcomes=True)
    strategy = Strategy.model_validate(
        {"type": kind, "steps": steps, "bake_s": bake_s, "guards": guards}
    )
    return world, rollout(world, strategy, origin=ORIGIN, target=TARGET, outcomes=outcomes)


def seconds_to_rollback(changes: list[tuple[float, Change]]) -> float:
    (begun, first), (ended, last) = changes[0], changes[-1]
    assert first.state == "progressing"
    assert last.state == "rolled_back"
    assert last.weights == {"1": 100, "2": 0}
    return ended - begun


def test_a_healthy_canary_is_promoted_after_its_steps() -> None:
    world, machine = begin(1, Behaviour())
    machine, changes = run(world, machine, 400)
    assert [(change.state, change.step, change.weights) for _, change in changes] == [
        ("progressing", 0, {"1": 95, "2": 5}),
        ("progressing", 1, {"1": 75, "2": 25}),
        ("progressing", 2, {"1": 50, "2": 50}),
        ("progressing", 3, {"1": 0, "2": 100}),
        ("promoted", 3, None),
    ]
    assert [at for at, _ in changes] == [1, 61, 121, 181, 241]
    assert set(changes[-1][1].evidence) == {
        "error_rate", "latency_p50", "latency_p99", "disagreement", "outcome", "step",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("new", "steps", "median_s", "most_s", "guard"),
    [
        (Behaviour(faults=1.0), (5, 25, 50), 3, 8, "error rate"),
        (Behaviour(faults=0.2), (5, 25, 50), 15, 40, "error rate"),
        (Behaviour(faults=0.2), (25, 50), 6, 15, "error rate"),
        (Behaviour(slowness=4.0), (5, 25, 50), 15, 40, "latency"),
        (Behaviour(slowness=4.0), (25, 50), 10, 15, "latency"),
        (Behaviour(disagree=0.2), (5, 25, 50), 10, 30, "disagreement"),
        (Behaviour(right=0.5), (5, 25, 50), 15, 40, "outcome"),
        (Behaviour(right=0.5), (25, 50), 6, 15, "outcome"),
    ],
)
def test_a_broken_version_is_rolled_back_in_seconds(
    new: Behaviour, steps: tuple[int, ...], median_s: float, most_s: float, guard: str
) -> None:
    seconds, reasons = [], []
    for seed in range(15):
        world, machine = begin(seed, new, steps=steps)
        _, changes = run(world, machine, 240)
        seconds.append(seconds_to_rollback(changes))
        reasons.append(changes[-1][1].reason)
    assert float(np.median(seconds)) <= median_s, seconds
    assert max(seconds) <= most_s, seconds
    assert sum(guard in reason.partition(" of version 2: ")[0] for reason in reasons) >= 13, reasons


def test_a_tail_that_doubles_is_found_by_the_guard_on_p99() -> None:
    guards = Guards(error_rate=None, latency=(LatencyGuard(quantile=0.99, ratio=1.2),))
    seconds = []
    for seed in range(10):
        world, machine = begin(seed, Behaviour(slowness=2.0), steps=(25, 50), guards=guards)
        _, changes = run(world, machine, 200)
        seconds.append(seconds_to_rollback(changes))
        assert changes[-1][1].reason.startswith("p99 latency of version 2")
    assert float(np.median(seconds)) <= 60


@pytest.mark.parametrize(
    ("new", "guard"),
    [
        (Behaviour(faults=0.2), "error rate"),
        (Behaviour(slowness=4.0), "latency"),
        (Behaviour(right=0.5), "outcome"),
    ],
)
def test_blue_green_is_judged_by_the_record_of_the_former_version(
    new: Behaviour, guard: str
) -> None:
    guards = ALL_GUARDS.model_copy(update={"error_rate": ErrorGuard(ratio=2.0)})
    for seed in range(5):
        world, machine = begin(seed, new, kind="blue_green", guards=guards)
        _, changes = run(world, machine, 200)
        assert seconds_to_rollback(changes) <= 15
        assert "from the former record of" in changes[-1][1].reason
        assert guard in changes[-1][1].reason


def test_a_version_that_breaks_at_the_last_step_is_rolled_back() -> None:
    def worse(world: World) -> None:
        world.versions = {"1": Behaviour(), "2": Behaviour(faults=0.04)}

    guards = Guards(error_rate=ErrorGuard(ratio=2.0), latency=())
    world, machine = begin(1, Behaviour(), bake_s=100, guards=guards)
    machine, changes = run(world, machine, 500, events={310: worse})
    at, last = changes[-1]
    assert last.state == "rolled_back"
    assert last.step == 3
    assert 310 < at <= 355
    assert "from the former record of" in last.reason


@pytest.mark.parametrize(
    ("outcomes", "better", "worse"),
    [
        (Outcomes(kind="reward"), 0.9, 0.5),
        (Outcomes(kind="number", better="lower"), 0.5, 0.9),
    ],
)
def test_outcomes_that_are_numbers(outcomes: Outcomes, better: float, worse: float) -> None:
    guards = Guards(error_rate=None, latency=(), outcome=OutcomeGuard(margin=0.05))
    for right, state in ((better, "promoted"), (worse, "rolled_back")):
        world, machine = begin(
            2, Behaviour(right=right), former=Behaviour(right=better), guards=guards,
            outcomes=outcomes, steps=(50,),
        )  # fmt: skip
        machine, changes = run(world, machine, 300)
        assert changes[-1][1].state == state
        found = changes[-1][1].evidence["outcome"]["new"]["mean"]
        assert found == pytest.approx(right, abs=0.1)


@pytest.mark.parametrize("new", [Behaviour(), Behaviour(faults=0.04, slowness=1.45, disagree=0.04)])
def test_a_version_that_keeps_its_limits_is_rarely_rolled_back(new: Behaviour) -> None:
    # The second one is nearly as bad as is allowed, in all respects.
    guards = ALL_GUARDS.model_copy(update={"alpha": 0.05})
    back = 0
    for seed in range(300):
        world, machine = begin(
            seed, new, former=Behaviour(faults=0.02), guards=guards, steps=(20, 50), bake_s=10
        )
        machine, _ = run(world, machine, 60)
        assert machine.progress.final
        back += machine.progress.state == "rolled_back"
    assert back < 15


SCENARIOS: dict[str, tuple[Behaviour, Mapping[int, Callable[[World], None] | Steering]]] = {
    "promoted": (Behaviour(), {}),
    "waits": (Behaviour(), {0: lambda w: w.ready.discard("2"), 9: lambda w: w.ready.add("2")}),
    "paused and resumed": (Behaviour(), {12: "pause", 30: "resume"}),
    "paused while pending": (
        Behaviour(),
        {0: lambda w: w.ready.discard("2"), 2: "pause", 3: lambda w: w.ready.add("2"), 5: "resume"},
    ),
    "broken": (Behaviour(faults=0.1), {}),
    "slow": (Behaviour(slowness=3.0), {}),
    "differs": (Behaviour(disagree=0.1), {}),
    "worse": (Behaviour(right=0.8), {}),
    "lost": (Behaviour(), {25: lambda w: w.ready.discard("2")}),
    "starved": (Behaviour(), {3: lambda w: setattr(w, "rate", 0.2)}),
    "promoted by hand": (Behaviour(), {12: "promote"}),
    "rolled back by hand": (Behaviour(), {22: "rollback"}),
}


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("kind", ["canary", "blue_green"])
def test_a_restart_in_every_second_changes_nothing(name: str, kind: str) -> None:
    new, events = SCENARIOS[name]

    def outcome(each: Callable[[RolloutMachine], RolloutMachine]) -> object:
        world, machine = begin(4, new, bake_s=15, steps=(10, 50), kind=kind)
        machine, changes = run(world, machine, 140, each=each, events=events)
        return machine.to_state(), changes

    assert outcome(again) == outcome(lambda machine: machine)
