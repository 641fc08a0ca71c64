"""Simulated traffic and a simulated clock for rollouts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from serve_app.domain.arms import ArmCounts, IngressReport, ShadowCounts
from serve_app.domain.control import Author, Steering
from serve_app.domain.inference import VersionKey
from serve_app.domain.release import Outcomes, Strategy
from serve_app.evidence import LatencyHistogram, Moments
from serve_app.rollout import Change, RolloutMachine, Terms

MODEL = "digits"
START = 1_700_000_000.0


@dataclass(frozen=True)
class Behaviour:
    """How one version does."""

    faults: float = 0.002
    slowness: float = 1.0
    """Times 20 ms, which is the median; p99 is 64 ms."""
    tail: float = 0.0
    """Share of requests that take ten times as long."""
    disagree: float = 0.0
    right: float = 0.95


@dataclass
class World:
    """One model with versions under traffic, seen through one ingress or more."""

    seed: int
    versions: Mapping[str, Behaviour]
    rate: float = 50.0
    ingresses: int = 2
    mirrored: Mapping[str, float] = field(default_factory=dict)
    outcomes: bool = False
    now: float = START
    ready: set[str] = field(default_factory=set)
    weights: Mapping[str, int] = field(default_factory=dict)
    sequence: int = 0
    outcome: int = 0

    def __post_init__(self) -> None:
        self.generator = np.random.default_rng(self.seed)
        self.ready = self.ready or set(self.versions)

    def second(self) -> tuple[list[IngressReport], dict[str, Moments]]:
        """What is reported about the next second."""
        self.now += 1.0
        self.sequence += 1
        reports: list[IngressReport] = []
        outcomes: dict[str, Moments] = {}
        for ingress in range(self.ingresses):
            arms, shadows = {}, {}
            total = self.generator.poisson(self.rate / self.ingresses)
            shares = [self.weights.get(version, 0) / 100 for version in self.versions]
            split = self.generator.multinomial(total, shares)
            for (version, its), count in zip(self.versions.items(), split, strict=True):
                if count:
                    arms[VersionKey(MODEL, version)] = self._arm(its, int(count))
                if self.outcomes:
                    right = int(self.generator.binomial(count, its.right))
                    found = Moments.of_counts(right, int(count))
                    outcomes[version] = outcomes.get(version, Moments()) + found
            for version, share in self.mirrored.items():
                compared = int(self.generator.binomial(total, share))
                differed = self.generator.binomial(compared, self.versions[version].disagree)
                shadows[VersionKey(MODEL, version)] = ShadowCounts(compared, int(differed), 0, 0)
            reports.append(IngressReport(f"ingress-{ingress}", self.sequence, arms, shadows))
        self.outcome += sum(its.count for its in outcomes.values())
        return reports, outcomes

    def _arm(self, its: Behaviour, count: int) -> ArmCounts:
        latency = LatencyHistogram()
        seconds = 0.02 * its.slowness * self.generator.lognormal(0.0, 0.5, count)
        seconds[self.generator.random(count) < its.tail] *= 10
        latency.add_all(seconds)
        faults = int(self.generator.binomial(count, its.faults))
        return ArmCounts(count, faults, tuple(int(each) for each in latency.counts))


def rollout(
    world: World,
    strategy: Strategy,
    *,
    origin: Mapping[str, int],
    target: Mapping[str, int],
    outcomes: Outcomes | None = None,
) -> RolloutMachine:
    """A pending rollout of the world's model."""
    world.weights = origin
    terms = Terms(origin=origin, target=target, strategy=strategy, outcomes=outcomes)
    return RolloutMachine(MODEL, terms, world.now)


def again(machine: RolloutMachine) -> RolloutMachine:
    """The same machine after a restart of its owner."""
    return RolloutMachine.from_state(json.loads(json.dumps(machine.to_state(), allow_nan=False)))


def run(
    world: World,
    machine: RolloutMachine,
    seconds: int,
    *,
    each: Callable[[RolloutMachine], RolloutMachine] = lambda machine: machine,
    events: Mapping[int, Callable[[World], None] | Steering] = MappingProxyType({}),
) -> tuple[RolloutMachine, list[tuple[float, Change]]]:
    """Lets time pass, until the rollout has ended; gives the changes with their times.

    `each` is called before every tick, an event before the second with its number: it changes the
    world, or somebody steers.
    """
    changes = []

    def changed(change: Change | None) -> None:
        if change is not None:
            changes.append((world.now - START, change))
            world.weights = change.weights if change.weights is not None else world.weights

    for _ in range(seconds):
        event = events.get(round(world.now - START))
        if isinstance(event, str):
            changed(machine.steer(event, Author(actor="ana"), world.now, world.ready))
        elif event is not None:
            event(world)
        reports, outcomes = world.second()
        for report in reports:
            machine.observe(report)
        if world.outcomes:
            machine.record(outcomes, world.outcome)
        machine = each(machine)
        changed(machine.tick(world.now, world.ready))
        if machine.progress.final:
            break
    return machine, changes
