"""The counters of one process, as cheap as they can be; names are in docs/reference/metrics.md.

On the hot path: one dictionary lookup, one bisection, two additions. Prometheus' own types appear
only when somebody scrapes (`serve_app.telemetry.exposition`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from serve_app.domain.inference import VersionKey
from serve_app.domain.routing import RouteTable
from serve_app.telemetry.trace import RequestTrace

SECONDS: tuple[float, ...] = (
    0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05,
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Upper bounds of the buckets for durations."""

ROWS: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 4096.0)
"""Upper bounds of the buckets for batches."""

MAX_SERIES = 2_000
"""Label sets per histogram; later ones are counted under `OTHER`."""

OTHER = "_other"


@dataclass(frozen=True, slots=True)
class HistogramName:
    """One histogram: its name, help, labels and upper bounds."""

    name: str
    help: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...]


_VERSION = ("model_name", "model_version")
REQUEST_SECONDS = HistogramName(
    "serve_app_request_duration_seconds",
    "From the arrival of a request to the end of its answer.",
    (*_VERSION, "protocol", "code"),
    SECONDS,
)
QUEUE_SECONDS = HistogramName(
    "serve_app_queue_duration_seconds",
    "How long a request waited for its batch to leave the ingress.",
    _VERSION,
    SECONDS,
)
COMPUTE_SECONDS = HistogramName(
    "serve_app_compute_duration_seconds",
    "How long a replica computed one batch.",
    _VERSION,
    SECONDS,
)
BATCH_ROWS = HistogramName("serve_app_batch_size", "Rows of one computed batch.", _VERSION, ROWS)
HISTOGRAMS: Mapping[str, HistogramName] = {
    each.name: each for each in (REQUEST_SECONDS, QUEUE_SECONDS, COMPUTE_SECONDS, BATCH_ROWS)
}


class Histogram:
    """The series of one label set: a count per bucket, not cumulative, and the sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Counts one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


Labels = tuple[str, ...]
Histograms = dict[str, dict[Labels, Histogram]]
"""Metric name -> label values -> series."""


@dataclass(frozen=True, slots=True)
class Gauges:
    """What is true at this moment in one process."""

    inflight: int = 0
    open_connections: int = 0
    route_table_revision: int = 0
    queue_depth_rows: Mapping[VersionKey, int] = field(default_factory=dict)


PROCESS_GAUGES: Mapping[str, str] = {
    "inflight": "Requests in work, by ingress process.",
    "open_connections": "Open HTTP connections, by ingress process.",
    "route_table_revision": "Revision of the route table in use, by ingress process.",
}
"""Field of `Gauges` -> help. The metric is called `serve_app_<field>`."""

PROCESS_COUNTERS: Mapping[str, str] = {
    "access_lines_dropped": "Lines of the access log that were lost because its writer was behind.",
}
"""Field of `RequestMetrics` -> help. The metric is called `serve_app_<field>_total`."""


class QueueDepth(Protocol):
    """A queue of the batcher, as far as a gauge looks at it."""

    @property
    def queued_rows(self) -> int:
        """Rows that wait."""
        ...


class Watched(Protocol):
    """The data plane, as far as gauges look at it."""

    @property
    def in_flight(self) -> int:
        """Requests that have not been answered."""
        ...

    @property
    def queues(self) -> Mapping[VersionKey, QueueDepth]:
        """The live queues."""
        ...

    @property
    def table(self) -> RouteTable:
        """The table in use."""
        ...


class RequestMetrics:
    """Counts the requests and batches of one process; belongs to one event loop."""

    def __init__(self) -> None:
        self._requests: dict[Labels, tuple[Histogram, Histogram]] = {}
        self._queue: dict[Labels, Histogram] = {}
        self._compute: dict[Labels, Histogram] = {}
        self._rows: dict[Labels, Histogram] = {}
        self._watched: tuple[Watched, Callable[[], int]] | None = None
        self.access_lines_dropped = 0

    def watch(self, plane: Watched, open_connections: Callable[[], int]) -> None:
        """Names the sources of the gauges; they are read only for an exposition."""
        self._watched = (plane, open_connections)

    def observe_request(self, trace: RequestTrace, code: str, seconds: float) -> None:
        """Counts one finished request."""
        key = (trace.model, trace.version, trace.protocol, code)
        series = self._requests.get(key)
        if series is None:
            series = self._open(key)
        requests, queue = series
        requests.counts[bisect_left(SECONDS, seconds)] += 1
        requests.total += seconds
        if trace.batch_rows:
            waited = trace.queue_s
            queue.counts[bisect_left(SECONDS, waited)] += 1
            queue.total += waited

    def observe_batch(self, key: VersionKey, rows: int, compute_s: float) -> None:
        """Counts one computed batch; a `serve_app.batching.BatchObserver`."""
        _series(self._rows, key, ROWS).observe(rows)
        _series(self._compute, key, SECONDS).observe(compute_s)

    def _open(self, key: tuple[str, str, str, str]) -> tuple[Histogram, Histogram]:
        """The series of a label set that is seen for the first time."""
        model, version, protocol, code = key
        if len(self._requests) >= MAX_SERIES:
            model = version = OTHER
            known = self._requests.get((model, version, protocol, code))
            if known is not None:
                return known
        series = (Histogram(SECONDS), _series(self._queue, (model, version), SECONDS))
        self._requests[model, version, protocol, code] = series
        return series

    def histograms(self) -> Histograms:
        """The live series, without those that have counted nothing."""
        return {
            REQUEST_SECONDS.name: {key: pair[0] for key, pair in self._requests.items()},
            QUEUE_SECONDS.name: {k: each for k, each in self._queue.items() if any(each.counts)},
            COMPUTE_SECONDS.name: dict(self._compute),
            BATCH_ROWS.name: dict(self._rows),
        }

    def counters(self) -> dict[str, int]:
        """The plain counters, by the names of `PROCESS_COUNTERS`."""
        return {name: getattr(self, name) for name in PROCESS_COUNTERS}

    def gauges(self) -> Gauges:
        """What is true now."""
        if self._watched is None:
            return Gauges()
        plane, open_connections = self._watched
        return Gauges(
            inflight=plane.in_flight,
            open_connections=open_connections(),
            route_table_revision=plane.table.revision,
            queue_depth_rows={key: queue.queued_rows for key, queue in plane.queues.items()},
        )


def _series(
    family: dict[Labels, Histogram], key: tuple[str, str], bounds: tuple[float, ...]
) -> Histogram:
    series = family.get(key)
    if series is None:
        if len(family) >= MAX_SERIES:
            key = (OTHER, OTHER)
        series = family.get(key)
        if series is None:
            series = family[tuple(key)] = Histogram(bounds)
    return series
