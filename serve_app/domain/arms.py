"""What an ingress tells ModelRouter of its arms, once a second: increments, not totals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from serve_app.domain.inference import VersionKey


class ArmCounts(NamedTuple):
    """Requests that a release assigned to one version."""

    requests: int
    faults: int
    """Those that the service failed: a 5xx, also one that a fallback hid."""
    latency: tuple[int, ...]
    """How many of the others were as slow as each bucket, by `serve_app.evidence.histogram.BOUNDS`
    and one above."""


class ShadowCounts(NamedTuple):
    """Requests that were mirrored to one version."""

    compared: int
    disagreed: int
    dropped: int
    """Not computed, for want of room or of a ready replica."""
    failed: int
    """Not computed for another reason, while the client got an answer."""


class Exposing(NamedTuple):
    """The requests of a model whose outcomes can be reported."""

    output: str
    """The one whose largest value is the prediction; empty: there is none."""
    share: float
    seed: int


class Exposure(NamedTuple):
    """One request whose outcome may be reported."""

    request_id: str
    key: VersionKey
    at: float
    """Seconds since the epoch."""
    prediction: tuple[int, ...] = ()
    """The class of each row, if outcomes are labels."""


class Disagreement(NamedTuple):
    """One mirrored request whose answers differed; outputs are cut to a few values."""

    request_id: str
    primary: VersionKey
    shadow: VersionKey
    at: float
    differences: Mapping[str, str]
    """Output -> both answers in words."""


class IngressReport(NamedTuple):
    """Everything since the last report of one ingress."""

    ingress: str
    sequence: int
    """Grows by one with each report: one that is repeated counts once."""
    arms: Mapping[VersionKey, ArmCounts]
    shadows: Mapping[VersionKey, ShadowCounts]
    exposures: tuple[Exposure, ...] = ()
    disagreements: tuple[Disagreement, ...] = ()
    exposures_dropped: int = 0
    """Those that there were too many of."""
