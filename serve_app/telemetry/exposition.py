"""The node's metrics in Prometheus' text formats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from serve_app.domain.inference import VersionKey
from serve_app.telemetry.metrics import PROCESS_GAUGES, Gauges, Histogram, Labels
from serve_app.telemetry.names import COUNTERS, HISTOGRAMS, CounterName, HistogramName
from serve_app.telemetry.node import NodeTotals

QUEUE_DEPTH = "serve_app_queue_depth_rows"
PROCESSES = "serve_app_ingress_processes"


class NodeCollector(Collector):
    """Presents the totals of a node to prometheus_client."""

    def __init__(self, totals: NodeTotals) -> None:
        self._totals = totals

    def collect(self) -> Iterator[Metric]:
        """All metric families, also those without a series."""
        for name, kind in HISTOGRAMS.items():
            yield _histogram(kind, self._totals.histograms.get(name, {}))
        for name, counter in COUNTERS.items():
            yield _counter(counter, self._totals.counters.get(name, {}))
        gauges = self._totals.gauges
        for name, text in PROCESS_GAUGES.items():
            family = GaugeMetricFamily(f"serve_app_{name}", text, labels=["pid"])
            for pid, values in gauges.items():
                family.add_metric([str(pid)], getattr(values, name))
            yield family
        yield _queue_depth(gauges)
        yield GaugeMetricFamily(
            PROCESSES, "Ingress processes of this node that are alive.", value=len(gauges)
        )


def render(totals: NodeTotals, accept: str) -> tuple[bytes, str]:
    """The exposition in the format that the scraper asks for, and its content type."""
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # it trips over versions that are no numbers
        encode, content_type = choose_encoder("")
    return encode(NodeCollector(totals)), content_type


def _histogram(kind: HistogramName, series: Mapping[Labels, Histogram]) -> Metric:
    family = HistogramMetricFamily(kind.name, kind.help, labels=kind.labels)
    bounds = [*map(str, kind.bounds), "+Inf"]
    for labels, each in series.items():
        buckets = list(zip(bounds, accumulate(each.counts), strict=True))
        family.add_metric(labels, buckets, each.total)
    return family


def _counter(kind: CounterName, series: Mapping[Labels, int]) -> Metric:
    family = CounterMetricFamily(kind.name, kind.help, labels=kind.labels)
    if not kind.labels and not series:
        family.add_metric((), 0)  # there is but one series, so it can begin at 0
    for labels, count in series.items():
        family.add_metric(labels, count)
    return family


def _queue_depth(gauges: Mapping[int, Gauges]) -> Metric:
    depths: dict[VersionKey, int] = {}
    for values in gauges.values():
        for key, rows in values.queue_depth_rows.items():
            depths[key] = depths.get(key, 0) + rows
    family = GaugeMetricFamily(
        QUEUE_DEPTH,
        "Rows that wait for a batch, all processes together.",
        labels=["model_name", "model_version"],
    )
    for key, rows in depths.items():
        family.add_metric(key, rows)
    return family
