"""What one inference carries: into the data plane, across the gateway, and back.

Most are named tuples: immutable, cheap to build on the hot path, and picklable. Validation has
happened before one is made.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import NamedTuple

from serve_app.domain.caller import UNKNOWN, Caller
from serve_app.domain.tensor import Array

Parameters = Mapping[str, str | int | float | bool]


class Layout:
    """What the data plane found out about one layout: names, datatypes, shapes, wanted outputs.

    Whoever knows that requests are laid out alike gives all of them the same object. It says
    nothing about values, and counts for the model route that it was found with.
    """

    __slots__ = ("model", "outputs", "rows", "signature", "size")

    def __init__(self) -> None:
        self.model: object = None
        """The model route that everything else is about; None: nothing is known."""
        self.rows = 0
        self.size = 0
        """Payload bytes."""
        self.signature: Hashable = ()
        self.outputs: tuple[str, ...] | None = None
        """The requested outputs; None means all."""


class InferenceRequest(NamedTuple):
    """One request, in whatever protocol it came."""

    model: str
    version: str | None
    """The version pinned by the client, or None to let the release choose."""
    inputs: Mapping[str, Array]
    request_id: str
    timeout_s: float | None = None
    """The client's wish; the version's own timeout caps it."""
    outputs: tuple[str, ...] = ()
    """Names of the requested outputs; empty means all."""
    layout: Layout | None = None
    """Shared by requests that differ in their values alone; None: nobody knows of such."""
    caller: Caller = UNKNOWN
    """Who sent it, for rules and sticky assignments."""


class InferenceResult(NamedTuple):
    """The answer to one request."""

    model: str
    version: str
    outputs: Mapping[str, Array]
    """In the order that the model declares, or that the request asked for."""


class VersionKey(NamedTuple):
    """Names one version of one model."""

    model: str
    version: str

    def __str__(self) -> str:
        return f"{self.model}@{self.version}"


class InferenceBatch(NamedTuple):
    """Several requests for one version and one signature, on their way to one replica."""

    inputs: Mapping[str, Array]
    """Each input of all members, concatenated along axis 0."""
    rows: tuple[int, ...]
    """How many rows each member contributes, in order."""
    budgets_s: tuple[float, ...]
    """Time that each member has left; clocks differ between nodes, durations do not."""
    request_ids: tuple[str, ...]
    slice_rows: int = 0
    """Compute at most this many rows at a time; 0: everything at once."""
    backlog: int = 0
    """Rows for the same version that wait in the sending ingress; what autoscaling looks at."""
    traceparents: tuple[str, ...] = ()
    """W3C trace context of each member, empty where it has none; () when none has any."""


class Failure(NamedTuple):
    """Why one member of a batch has no outputs; `code` is the code of an error class."""

    code: str
    detail: str
    field: str | None = None
    """Which part of the request is at fault, if one is."""


class BatchResult(NamedTuple):
    """What a replica answers to a batch."""

    outputs: Mapping[str, Array]
    """Each output of the members that succeeded, concatenated along axis 0, in order."""
    failures: Mapping[int, Failure]
    """Member index -> why it failed; its rows are missing from `outputs`."""
    compute_s: float
    """Seconds that the model took."""
    transport: str = ""
    """Which way the batch took: `direct` or `handle`."""
    tokens: int = 0
    """Positions that a text model computed, padding included; 0: the model does not say."""
    padding: int = 0
    """How many of them were padding."""
