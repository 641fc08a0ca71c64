"""Request rates and latencies of a short window, from two scrapes of the node's metrics."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

REQUESTS = "serve_app_request_duration_seconds"
BATCHES = "serve_app_batch_size"
WINDOW_S = 2.0
"""Each ingress shares its numbers once a second, so a shorter window would be noise."""

ALL = ""
"""In place of a version: all of a model."""

Key = tuple[str, str]
"""Model and version."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What one version did during the window."""

    requests_per_s: float = 0.0
    errors: float = 0.0
    """Share of answers that were not `ok`, 0 to 1."""
    p50_ms: float | None = None
    p99_ms: float | None = None
    rows_per_batch: float | None = None


class _Counts:
    def __init__(self) -> None:
        self.buckets: defaultdict[Key, defaultdict[float, float]] = defaultdict(
            lambda: defaultdict(float)
        )
        self.total: defaultdict[Key, float] = defaultdict(float)
        self.failed: defaultdict[Key, float] = defaultdict(float)
        self.rows: defaultdict[Key, float] = defaultdict(float)
        self.batches: defaultdict[Key, float] = defaultdict(float)


def measure(metrics_url: str) -> Mapping[Key, Rates]:
    """Rates by model and version, and of `ALL`, over the window; empty without metrics."""
    try:
        with httpx.Client(timeout=5.0, trust_env=False) as client:
            url = f"{metrics_url}/metrics"
            before, began = _read(client.get(url).text), time.monotonic()
            time.sleep(WINDOW_S)
            after, seconds = _read(client.get(url).text), time.monotonic() - began
    except (httpx.HTTPError, ValueError):
        return {}
    return {key: _rates(key, before, after, seconds) for key in after.total}


def _read(text: str) -> _Counts:
    counts = _Counts()
    for family in text_string_to_metric_families(text):
        if family.name not in (REQUESTS, BATCHES):
            continue
        for sample in family.samples:
            model = sample.labels["model_name"]
            for key in ((model, sample.labels["model_version"]), (model, ALL)):
                _add(counts, key, sample.name, sample.labels, sample.value)
    return counts


def _add(counts: _Counts, key: Key, name: str, labels: Mapping[str, str], value: float) -> None:
    if name == f"{REQUESTS}_bucket":
        counts.buckets[key][float(labels["le"])] += value
    elif name == f"{REQUESTS}_count":
        counts.total[key] += value
        if labels["code"] != "ok":
            counts.failed[key] += value
    elif name == f"{BATCHES}_sum":
        counts.rows[key] += value
    elif name == f"{BATCHES}_count":
        counts.batches[key] += value


def _rates(key: Key, before: _Counts, after: _Counts, seconds: float) -> Rates:
    total = after.total[key] - before.total[key]
    if total <= 0:
        return Rates()
    buckets = [
        (bound, after.buckets[key][bound] - before.buckets[key][bound])
        for bound in sorted(after.buckets[key])
    ]
    batches = after.batches[key] - before.batches[key]
    return Rates(
        requests_per_s=total / seconds,
        errors=(after.failed[key] - before.failed[key]) / total,
        p50_ms=quantile(0.50, buckets),
        p99_ms=quantile(0.99, buckets),
        rows_per_batch=(after.rows[key] - before.rows[key]) / batches if batches > 0 else None,
    )


def quantile(q: float, buckets: list[tuple[float, float]]) -> float | None:
    """A quantile in ms from cumulative buckets (upper bound in s, count), linear within a bucket.

    The same estimate as PromQL's `histogram_quantile`.
    """
    if not buckets or buckets[-1][1] <= 0:
        return None
    rank = q * buckets[-1][1]
    lower, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            if bound == float("inf"):
                return lower * 1000
            share = (rank - below) / (count - below) if count > below else 1.0
            return (lower + (bound - lower) * share) * 1000
        lower, below = bound, count
    return None
