"""A release: which versions of a model take traffic, how, and how a change of it is carried out.

The config embeds these values, the API takes them, SQL stores them, the route table carries them.
docs/releases.md explains the semantics.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from serve_app.domain.tensor import Name

_HEADER = r"^[a-z0-9-]{1,64}$"
HeaderName = Annotated[str, StringConstraints(pattern=_HEADER)]
"""A header in lower case, as HTTP/2 and gRPC have them."""
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=256)]
"""A glob: `*` and `?` stand for any characters."""
Percent = Annotated[float, Field(gt=0, le=100)]
Seconds = Annotated[float, Field(gt=0, le=7 * 86_400)]


class _Value(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False
    )


class Candidate(_Value):
    """One version and its share of a model's traffic."""

    version: Name = Field(validation_alias=AliasChoices("version", "name"))
    weight: int = Field(
        ge=0,
        le=100,
        validation_alias=AliasChoices("weight", "trafficPercent"),
        description="percent of the model's traffic",
    )


class Mirror(_Value):
    """A version that computes a share of the requests as well, and whose answers nobody gets."""

    version: Name = Field(validation_alias=AliasChoices("version", "name"))
    percent: Percent = Field(description="of the model's requests")


class Sticky(_Value):
    """What an assignment sticks to; requests without it are assigned by their own id."""

    by: Literal["header", "cookie", "tenant", "api_key"] = Field(
        description="tenant reads x-tenant-id; api_key reads x-api-key or the bearer token"
    )
    name: str | None = Field(
        None, min_length=1, max_length=64, description="of the header, in lower case, or the cookie"
    )
    salt: str = Field("", max_length=64, description="another one shuffles all assignments anew")

    @model_validator(mode="after")
    def _named(self) -> Self:
        if (self.by in ("header", "cookie")) != (self.name is not None):
            raise ValueError("name is needed by header and cookie, and by nothing else.")
        if self.by == "header" and re.fullmatch(_HEADER, self.name or "") is None:
            raise ValueError("write the name of a header in lower case, such as x-user-id.")
        return self


class Match(_Value):
    """What a request must look like: everything that is given must fit."""

    header: Mapping[HeaderName, Pattern] = Field(default_factory=dict)
    query: Mapping[str, Pattern] = Field(default_factory=dict)
    tenant: Pattern | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not (self.header or self.query or self.tenant):
            raise ValueError("name at least one header, query parameter or tenant.")
        return self


class Rule(_Value):
    """Requests that match go to this version, whatever the weights say."""

    match: Match
    version: Name = Field(description="or a label")


class Compare(_Value):
    """When the answer of a shadow agrees with the one that the client got."""

    kind: Literal["tolerance", "top_k", "cosine"] = "tolerance"
    output: Name | None = Field(None, description="null compares every output")
    rtol: float = Field(1e-3, ge=0, description="tolerance: relative")
    atol: float = Field(1e-5, ge=0, description="tolerance: absolute")
    k: int = Field(1, ge=1, le=100, description="top_k: the same k largest, in any order")
    min_similarity: float = Field(0.99, gt=0, le=1, description="cosine: of each row")


class Outcomes(_Value):
    """What will be reported about answers, and how long after them it counts."""

    kind: Literal["label", "number", "reward"] = Field(
        description="label: the true class, compared with the largest value of `output`; "
        "number and reward: a figure of the caller's, such as revenue or a rating"
    )
    output: Name | None = Field(None, description="label: the output whose largest value counts")
    better: Literal["higher", "lower"] = Field("higher", description="number and reward")
    window_s: Seconds = Field(86_400.0, description="later outcomes are refused as late")
    sample: Percent = Field(100.0, description="of the requests whose outcome can be reported")

    @model_validator(mode="after")
    def _labelled(self) -> Self:
        if (self.kind == "label") != (self.output is not None):
            raise ValueError("output is needed by label, and by nothing else.")
        return self


class ErrorGuard(_Value):
    """Share of requests that the service failed (5xx)."""

    max: float | None = Field(None, gt=0, lt=1, description="absolute, such as 0.05")
    ratio: float | None = Field(None, ge=1, description="times that of the former version")

    @model_validator(mode="after")
    def _limited(self) -> Self:
        if self.max is None and self.ratio is None:
            raise ValueError("give max, ratio or both: without a limit nothing is guarded.")
        return self


class LatencyGuard(_Value):
    """One quantile of the latency."""

    quantile: float = Field(0.99, gt=0, lt=1)
    max_ms: float | None = Field(None, gt=0, description="absolute")
    ratio: float | None = Field(None, ge=1, description="times that of the former version")

    @model_validator(mode="after")
    def _limited(self) -> Self:
        if self.max_ms is None and self.ratio is None:
            raise ValueError("give max_ms, ratio or both: without a limit nothing is guarded.")
        return self


class DisagreementGuard(_Value):
    """Share of shadow answers that differ."""

    max: float = Field(gt=0, lt=1)


class OutcomeGuard(_Value):
    """Reported outcomes of the new version against those of the former one."""

    margin: float = Field(0.0, ge=0, description="so much worse is still taken for as good")


class Guards(_Value):
    """What must not get worse; a guard that breaks ends the rollout and puts traffic back."""

    error_rate: ErrorGuard | None = ErrorGuard(max=0.05, ratio=2.0)
    latency: tuple[LatencyGuard, ...] = (LatencyGuard(quantile=0.99, ratio=2.0),)
    disagreement: DisagreementGuard | None = None
    outcome: OutcomeGuard | None = None
    alpha: float = Field(
        0.01, gt=0, lt=0.5, description="chance that a version as good as the former one breaks any"
    )

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        quantiles = [each.quantile for each in self.latency]
        if len(set(quantiles)) != len(quantiles):
            raise ValueError("each quantile may be guarded once: one guard takes both limits.")
        return self


class Strategy(_Value):
    """How traffic moves from the weights of now to the wanted ones."""

    type: Literal["canary", "linear", "blue_green", "all_at_once"] = "all_at_once"
    steps: tuple[Annotated[int, Field(gt=0, lt=100)], ...] = Field(
        (5, 25, 50), description="canary: percent of the way, rising; the last step is always 100"
    )
    step: int = Field(20, gt=0, le=100, description="linear: percent of the way per step")
    bake_s: Seconds = Field(60.0, description="how long each step is watched")
    min_samples: int = Field(
        100,
        ge=1,
        description="requests that the new version must have answered in each step; guards on "
        "disagreement and outcomes need as many mirrored answers and outcomes of it in all",
    )
    patience: float = Field(
        5.0, ge=1, description="times bake_s without min_samples, then the rollout pauses"
    )
    guards: Guards = Guards()

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if list(self.steps) != sorted(set(self.steps)):
            raise ValueError("steps must rise.")
        return self

    @property
    def plan(self) -> tuple[int, ...]:
        """Percent of the way at each step, ending with 100; empty without a rollout."""
        if self.type == "all_at_once":
            return ()
        if self.type == "blue_green":
            return (100,)
        steps = self.steps if self.type == "canary" else tuple(range(self.step, 100, self.step))
        return (*steps, 100)


class Bandit(_Value):
    """Weights that follow the reported outcomes (Thompson sampling)."""

    floor: int = Field(5, ge=1, le=50, description="least percent of each candidate")
    ceiling: int = Field(95, ge=50, le=99, description="most percent of each")
    every_s: Seconds = Field(60.0, description="how often the weights are drawn anew")


class Release(_Value):
    """Everything that decides where a model's requests go."""

    candidates: tuple[Candidate, ...] = Field(min_length=1, max_length=32)
    sticky: Sticky | None = None
    rules: tuple[Rule, ...] = Field((), max_length=64)
    labels: Mapping[Name, Name] = Field(default_factory=dict, description="label -> version")
    fallback: Name | None = Field(None, description="answers when the chosen version cannot")
    mirror: tuple[Mirror, ...] = Field((), max_length=4)
    compare: Compare = Compare()
    outcomes: Outcomes | None = None
    strategy: Strategy = Strategy()
    bandit: Bandit | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        total = sum(candidate.weight for candidate in self.candidates)
        if total != 100:
            raise ValueError(f"the weights of all candidates must sum up to 100, not {total}.")
        for what, names in (
            ("candidate", [each.version for each in self.candidates]),
            ("mirror", [each.version for each in self.mirror]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"each version may be a {what} once.")
        guards = self.strategy.guards
        if self.outcomes is None and (self.bandit is not None or guards.outcome is not None):
            what = "a bandit" if self.bandit is not None else "a guard on outcomes"
            raise ValueError(f"{what} needs outcomes.")
        if guards.disagreement is not None and not self.mirror:
            raise ValueError("a guard on disagreement needs a mirror.")
        return self

    @property
    def weights(self) -> dict[str, int]:
        """Version -> percent, of all candidates."""
        return {each.version: each.weight for each in self.candidates}

    @property
    def serving(self) -> frozenset[str]:
        """The versions that take traffic."""
        return frozenset(each.version for each in self.candidates if each.weight)

    @property
    def digest(self) -> str:
        """The sha256 of everything in it: equal releases have equal digests.

        What is left at its default is left out: with one more field in a later release of this
        program every release of every config would be another one, and be taken over again.
        """
        chosen = self.model_dump(mode="json", exclude_defaults=True)
        text = json.dumps(chosen, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def with_weights(self, weights: Mapping[str, int]) -> Release:
        """The same release with these weights; a version that is not named gets none.

        Raises:
            pydantic.ValidationError: they do not sum up to 100.
        """
        candidates = [
            {"version": version, "weight": weights.get(version, 0)}
            for version in dict.fromkeys([*self.weights, *weights])
        ]
        return Release.model_validate({**self.model_dump(), "candidates": candidates})

    def without_idle(self, versions: Collection[str]) -> Release:
        """The same release without candidates that have no weight and are not among these."""
        kept = [each for each in self.candidates if each.weight or each.version in versions]
        return self.model_copy(update={"candidates": tuple(kept)})


def faults(
    release: Release, versions: Mapping[str, object], outputs: Collection[str] | None = None
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What a release names that a model does not have: where it stands, and what is wrong.

    Args:
        release: checked by its schema.
        versions: the model's versions, by name.
        outputs: the names of the model's outputs; None: not known here.
    """
    declared = ", ".join(versions)

    def unknown(name: str) -> str:
        return f'"{name}" is not a version of this model. Declared: {declared}.'

    for index, candidate in enumerate(release.candidates):
        if candidate.version not in versions:
            yield ("candidates", index, "version"), unknown(candidate.version)
    for index, mirror in enumerate(release.mirror):
        if mirror.version not in versions:
            yield ("mirror", index, "version"), unknown(mirror.version)
    for label, version in release.labels.items():
        if label in versions:
            yield ("labels", label), f'"{label}" is a version: a label needs a name of its own.'
        elif version not in versions:
            yield ("labels", label), unknown(version)
    for index, rule in enumerate(release.rules):
        if rule.version not in versions and rule.version not in release.labels:
            known = ", ".join([*versions, *release.labels])
            text = f'"{rule.version}" is neither a version nor a label. Known: {known}.'
            yield ("rules", index, "version"), text
    if release.fallback is not None and release.fallback not in versions:
        yield ("fallback",), unknown(release.fallback)
    for part, settings in (("compare", release.compare), ("outcomes", release.outcomes)):
        output = None if settings is None else settings.output
        if outputs is not None and output is not None and output not in outputs:
            text = f'"{output}" is not an output of this model. Declared: {", ".join(outputs)}.'
            yield (part, "output"), text
