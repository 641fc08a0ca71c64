"""The route table and the pure function that chooses a version.

`ModelRouter` compiles the table and publishes it; every ingress holds a copy and chooses from it
in its own process. Two ingresses with the same table choose the same version for the same key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cached_property
from sys import intern
from typing import Any, NamedTuple

import numpy as np

from serve_app.domain.arms import Exposing
from serve_app.domain.assignment import key_of, seed_of, winner
from serve_app.domain.batching_policy import BatchingPolicy
from serve_app.domain.caller import TENANT, UNKNOWN, Caller, sticky_value
from serve_app.domain.inference import VersionKey
from serve_app.domain.release import Match, Release
from serve_app.domain.tensor import TensorSpec
from serve_app.errors import ModelNotFound, NotReady, VersionNotFound


class Endpoint(NamedTuple):
    """Where one replica listens for batches on the direct channel."""

    node: str
    """The node that it runs on: only ingresses there can reach it."""
    path: str
    """Of its Unix socket."""
    replica: str
    """Identity of the replica, which the channel's greeting repeats."""
    capacity: int
    """Batches that it works on at a time, all ingresses together."""


class VersionRoute(NamedTuple):
    """One version as an ingress sees it.

    A table holds thousands of them: a named tuple crosses processes in a third of the time.
    """

    key: VersionKey
    application: str
    platform: str
    batching: BatchingPolicy
    timeout_s: float
    replicas: int
    """Replicas that are ready."""
    idempotent: bool = True
    metadata: Mapping[str, str] = {}
    endpoints: tuple[Endpoint, ...] = ()
    """Direct channels of the replicas that have announced one; the others are reached by handle."""
    asleep: bool = False
    """Whether it has no replica, and a request starts one and waits for it."""

    @property
    def answers(self) -> bool:
        """Whether requests may be sent there."""
        return self.replicas > 0 or self.asleep


class Choice(NamedTuple):
    """Who answers a request. Made once per route, not once per request."""

    route: VersionRoute
    """It may be one that cannot answer, if nothing else can or if it was asked for."""
    arm: str
    """The same version if the weights chose it; empty if the client or a rule did."""
    spare: VersionRoute | None
    """Who answers if it cannot; None: nobody."""


class Arm(NamedTuple):
    """A candidate with traffic."""

    weight: int
    seed: int
    choice: Choice


class Glob(NamedTuple):
    """One thing that a rule asks about a caller, and what the answer must look like."""

    query: bool
    """Whether it is a parameter of the query, and not a header."""
    name: str
    pattern: re.Pattern[str]


class MatchRule(NamedTuple):
    """A rule, ready for use."""

    globs: tuple[Glob, ...]
    choice: Choice

    def fits(self, caller: Caller) -> bool:
        """Whether a caller is what it asks for."""
        for query, name, pattern in self.globs:
            value = caller.query(name) if query else caller.header(name)
            if value is None or pattern.match(value) is None:
                return False
        return True


class MirrorRoute(NamedTuple):
    """A version that computes a share of a model's requests as well."""

    route: VersionRoute
    share: float
    seed: int
    candidate: bool
    """Whether it has traffic of its own, before which mirrored requests must step back."""


@dataclass(frozen=True)
class ModelRoute:
    """One model: its signature, its versions, and how traffic is shared among them.

    What a request needs is derived once, when the first one asks.
    """

    name: str
    description: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    versions: Mapping[str, VersionRoute]
    release: Release

    def __reduce__(self) -> tuple[Any, ...]:
        """Only the fields cross processes: what is derived from them is derived there."""
        fields = (self.name, self.description, self.inputs, self.outputs)
        return ModelRoute, (*fields, self.versions, self.release)

    @cached_property
    def batchable(self) -> bool:
        """Whether rows of several requests may share one call: every first dimension is -1."""
        return all(spec.shape[:1] == (-1,) for spec in (*self.inputs, *self.outputs))

    @cached_property
    def row_inputs(self) -> tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]:
        """Name, dtype and shape of one row of each input; empty unless every row is alike."""
        specs = self.inputs if self.batchable else ()
        if any(-1 in spec.shape[1:] for spec in specs):
            return ()
        return tuple((spec.name, spec.dtype, spec.shape[1:]) for spec in specs)

    @cached_property
    def pinned(self) -> Mapping[str, Choice]:
        """Choices by what a client may ask for: versions and labels. Nobody stands in for them."""
        labels = {
            label: self.versions[version]
            for label, version in self.release.labels.items()
            if version in self.versions
        }
        return {
            name: Choice(route, "", None) for name, route in {**labels, **self.versions}.items()
        }

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        """The candidates that have traffic and are ready.

        Traffic of a candidate that is not ready falls to the ready ones in proportion to their
        weights. If none is ready they all stand here: one is chosen, and found not to be ready.
        """
        salt = self.release.sticky.salt if self.release.sticky is not None else ""
        arms = [
            Arm(
                candidate.weight,
                seed_of("arm", salt, self.name, candidate.version),
                Choice(route, candidate.version, self._spare(candidate.version)),
            )
            for candidate in self.release.candidates
            if candidate.weight and (route := self.versions.get(candidate.version)) is not None
        ]
        return tuple([arm for arm in arms if arm.choice.route.answers] or arms)

    @cached_property
    def rules(self) -> tuple[MatchRule, ...]:
        """The rules, in their order."""
        return tuple(
            MatchRule(
                tuple(_globs(rule.match)),
                Choice(pinned.route, "", self._spare(pinned.route.key.version)),
            )
            for rule in self.release.rules
            if (pinned := self.pinned.get(rule.version)) is not None
        )

    @cached_property
    def mirrors(self) -> tuple[MirrorRoute, ...]:
        """The versions that get a copy of some requests."""
        serving = self.release.serving
        return tuple(
            MirrorRoute(
                route,
                mirror.percent / 100.0,
                seed_of("mirror", self.name, mirror.version),
                mirror.version in serving,
            )
            for mirror in self.release.mirror
            if (route := self.versions.get(mirror.version)) is not None
        )

    @cached_property
    def exposure(self) -> Exposing | None:
        """Whose outcomes can be reported; None: nobody's."""
        outcomes = self.release.outcomes
        if outcomes is None:
            return None
        return Exposing(
            outcomes.output or "", outcomes.sample / 100.0, seed_of("outcomes", self.name)
        )

    @cached_property
    def asks(self) -> bool:
        """Whether the choice depends on who sends a request."""
        return bool(self.rules) or (self.release.sticky is not None and len(self.arms) > 1)

    @cached_property
    def measured(self) -> bool:
        """Whether requests are counted by arm: there is something to compare them with."""
        release = self.release
        several = len(release.candidates) > 1
        return several or bool(release.mirror) or release.outcomes is not None

    @cached_property
    def plan(self) -> tuple[tuple[MatchRule, ...], tuple[Arm, ...], str, str]:
        """Rules, arms, and by what an assignment is sticky: by nothing, if that is empty.

        Found by one lookup, with names that all models share: with thousands of models the memory
        that a choice touches is what takes its time.
        """
        sticky = self.release.sticky
        if sticky is None:
            return self.rules, self.arms, "", ""
        return self.rules, self.arms, intern(sticky.by), intern(sticky.name or "")

    @property
    def only(self) -> Choice | None:
        """The choice for every request that pins no version, if it is always the same."""
        arms = self.arms
        return arms[0].choice if len(arms) == 1 and not self.rules else None

    @property
    def ready(self) -> bool:
        """Whether a request that names no version can be answered."""
        return any(arm.choice.route.answers or arm.choice.spare is not None for arm in self.arms)

    def _spare(self, version: str) -> VersionRoute | None:
        """The fallback for a version, if it is another one and ready."""
        fallback = self.release.fallback
        route = None if fallback in (None, version) else self.versions.get(fallback or "")
        return route if route is not None and route.answers else None


def _globs(match: Match) -> Iterator[Glob]:
    tenant = {} if match.tenant is None else {TENANT: match.tenant}
    for query, patterns in ((False, match.header), (False, tenant), (True, match.query)):
        for name, pattern in patterns.items():
            yield Glob(query, name, re.compile(translate(pattern)))


@dataclass(frozen=True, slots=True)
class RouteTable:
    """Everything that an ingress needs to know about models, at one revision."""

    revision: int
    """Grows with every change, also across restarts of the router."""
    models: Mapping[str, ModelRoute] = field(default_factory=dict)
    ingresses: int = 1
    """How many ingress replicas share the replicas' slots."""

    def model(self, name: str) -> ModelRoute:
        """Looks a model up; raises ModelNotFound."""
        try:
            return self.models[name]
        except KeyError:
            raise ModelNotFound(name) from None

    def version(self, model: str, version: str) -> VersionRoute:
        """Looks a version or a label up, ready or not; raises ModelNotFound or VersionNotFound."""
        try:
            return self.model(model).pinned[version].route
        except KeyError:
            raise VersionNotFound(model, version) from None


EMPTY_TABLE = RouteTable(revision=0)


def choose_version(
    model: ModelRoute, pinned: str | None, request_id: str, caller: Caller = UNKNOWN
) -> Choice:
    """Chooses the version that answers a request (docs/releases.md, "Choosing a version").

    Pure and deterministic: the same table, key and caller give the same version in every process.

    Args:
        model: the model's route.
        pinned: the version or label in the request's path, which bypasses everything else.
        request_id: what the assignment sticks to where the release or the caller names nothing.
        caller: asked only where the release has rules or is sticky.

    Raises:
        VersionNotFound: `pinned` is neither a version nor a label of this model.
        NotReady: the release names no version that the model has.
    """
    if pinned is not None:
        try:
            return model.pinned[pinned]
        except KeyError:
            raise VersionNotFound(model.name, pinned) from None
    rules, arms, by, name = model.plan
    for rule in rules:
        if rule.fits(caller):
            return rule.choice
    if len(arms) == 1:
        return arms[0].choice
    value = sticky_value(by, name, caller) if by else None
    choice = winner(arms, key_of(value or request_id))
    if choice is None:
        raise NotReady(f"model {model.name!r} has no version to answer")
    return choice
