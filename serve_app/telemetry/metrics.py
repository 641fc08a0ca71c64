"""The counters of one process, as cheap as they can be; names are in docs/reference/metrics.md.

On the hot path: one dictionary lookup, one bisection, two additions. Prometheus' own types appear
only when somebody scrapes (`serve_app.telemetry.exposition`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

from serve_app.domain.arms import IngressReport
from serve_app.domain.inference import BatchResult, VersionKey
from serve_app.domain.routing import RouteTable
from serve_app.telemetry.names import (
    ARM_FAULTS,
    ARM_REQUESTS,
    BATCH_ROWS,
    BATCHES,
    CHANNEL_FALLBACKS,
    COMPUTE_SECONDS,
    COUNTERS,
    EXPOSURES_DROPPED,
    FALLBACKS,
    HISTOGRAMS,
    LINES_DROPPED,
    QUEUE_SECONDS,
    REQUEST_SECONDS,
    SECONDS,
    SHADOWS,
    TOKENS_COMPUTED,
    TOKENS_PADDING,
    CounterName,
    HistogramName,
)
from serve_app.telemetry.trace import RequestTrace

MAX_SERIES = 2_000
"""Label sets per metric; later ones are counted under `OTHER`."""

OTHER = "_other"


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


class Counter:
    """The series of one label set."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


Labels = tuple[str, ...]
Histograms = dict[str, dict[Labels, Histogram]]
"""Metric name -> label values -> series."""
Counts = dict[str, dict[Labels, int]]
"""The same of counters."""

S = TypeVar("S")


class _BatchSeries(NamedTuple):
    """What a batch is counted in: all of it found by one lookup."""

    rows: Histogram
    compute: Histogram
    batches: Counter
    tokens: Counter
    padding: Counter


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
        self._batches: dict[tuple[VersionKey, str], _BatchSeries] = {}
        self._histograms: Histograms = {name: {} for name in HISTOGRAMS}
        self._counters: dict[str, dict[Labels, Counter]] = {name: {} for name in COUNTERS}
        self._watched: tuple[Watched, Callable[[], int]] | None = None

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
        if trace.fallback_from:
            chosen = (trace.model, trace.fallback_from, trace.fallback_reason)
            self._counter(FALLBACKS, chosen).value += 1

    def observe_batch(self, key: VersionKey, rows: int, result: BatchResult) -> None:
        """Counts one computed batch; a `serve_app.batching.BatchObserver`."""
        series = self._batches.get((key, result.transport))
        if series is None:
            series = self._open_batches(key, result.transport)
        series.rows.observe(rows)
        series.compute.observe(result.compute_s)
        series.batches.value += 1
        if result.tokens:
            series.tokens.value += result.tokens
            series.padding.value += result.padding

    def count_report(self, report: IngressReport) -> None:
        """Counts what is about to be reported of the arms of releases."""
        for key, arm in report.arms.items():
            self._counter(ARM_REQUESTS, key).value += arm.requests
            self._counter(ARM_FAULTS, key).value += arm.faults
        for key, shadow in report.shadows.items():
            results = {
                "agreed": shadow.compared - shadow.disagreed,
                "disagreed": shadow.disagreed,
                "dropped": shadow.dropped,
                "failed": shadow.failed,
            }
            for result in filter(results.get, results):
                self._counter(SHADOWS, (*key, result)).value += results[result]
        self._counter(EXPOSURES_DROPPED, ()).value += report.exposures_dropped

    def count_fallback(self, key: VersionKey, reason: str) -> None:
        """Counts one batch that could not take the direct channel."""
        self._counter(CHANNEL_FALLBACKS, (*key, reason)).value += 1

    def count_dropped_line(self) -> None:
        """Counts one lost line of the access log."""
        self._counter(LINES_DROPPED, ()).value += 1

    def _open(self, key: Labels) -> tuple[Histogram, Histogram]:
        """The series of a label set that is seen for the first time."""
        series = (self._histogram(REQUEST_SECONDS, key), self._histogram(QUEUE_SECONDS, key[:2]))
        if len(self._requests) < MAX_SERIES:
            self._requests[key] = series
        return series

    def _open_batches(self, key: VersionKey, transport: str) -> _BatchSeries:
        """The series of a version and transport that are seen for the first time."""
        series = _BatchSeries(
            self._histogram(BATCH_ROWS, key),
            self._histogram(COMPUTE_SECONDS, key),
            self._counter(BATCHES, (*key, transport)),
            self._counter(TOKENS_COMPUTED, key),
            self._counter(TOKENS_PADDING, key),
        )
        if len(self._batches) < MAX_SERIES:
            self._batches[key, transport] = series
        return series

    def _histogram(self, kind: HistogramName, labels: Labels) -> Histogram:
        return _series(self._histograms[kind.name], labels, lambda: Histogram(kind.bounds))

    def _counter(self, kind: CounterName, labels: Labels) -> Counter:
        return _series(self._counters[kind.name], labels, Counter)

    def histograms(self) -> Histograms:
        """The live series, without those that have counted nothing."""
        return {
            name: {labels: each for labels, each in family.items() if any(each.counts)}
            for name, family in self._histograms.items()
        }

    def counters(self) -> Counts:
        """The same of the counters."""
        return {
            name: {labels: each.value for labels, each in family.items() if each.value}
            for name, family in self._counters.items()
        }

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


def _series(family: dict[Labels, S], labels: Labels, new: Callable[[], S]) -> S:
    """The series of a label set; of the model and version `OTHER` where there are too many."""
    series = family.get(labels)
    if series is None and len(family) >= MAX_SERIES:
        labels = (OTHER, OTHER, *labels[2:])
        series = family.get(labels)
    if series is None:
        series = family[tuple(labels)] = new()
    return series
