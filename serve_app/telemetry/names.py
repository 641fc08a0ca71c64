"""The names of all histograms and counters; docs/reference/metrics.md explains them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SECONDS: tuple[float, ...] = (
    0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05,
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Upper bounds of the buckets for durations."""

ROWS: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 4096.0)
"""Upper bounds of the buckets for batches."""


@dataclass(frozen=True, slots=True)
class HistogramName:
    """One histogram: its name, help, labels and upper bounds."""

    name: str
    help: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class CounterName:
    """One counter: its name, help and labels."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


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

BATCHES = CounterName(
    "serve_app_batches_total",
    "Computed batches, by the way that they took to the replica.",
    (*_VERSION, "transport"),
)
TOKENS_COMPUTED = CounterName(
    "serve_app_tokens_computed_total",
    "Positions that a text model computed, padding included.",
    _VERSION,
)
TOKENS_PADDING = CounterName(
    "serve_app_tokens_padding_total",
    "Positions that a text model computed although they were padding.",
    _VERSION,
)
CHANNEL_FALLBACKS = CounterName(
    "serve_app_channel_fallbacks_total",
    "Batches that took a handle because the direct channel could not.",
    (*_VERSION, "reason"),
)
FALLBACKS = CounterName(
    "serve_app_fallbacks_total",
    "Requests that a release's fallback took over from the version that was chosen.",
    (*_VERSION, "reason"),
)
ARM_REQUESTS = CounterName(
    "serve_app_arm_requests_total",
    "Requests that the weights of a release assigned to a version.",
    _VERSION,
)
ARM_FAULTS = CounterName(
    "serve_app_arm_faults_total",
    "Of which the service failed, those included that a fallback answered.",
    _VERSION,
)
SHADOWS = CounterName(
    "serve_app_shadows_total",
    "Mirrored requests by what became of them.",
    (*_VERSION, "result"),
)
EXPOSURES_DROPPED = CounterName(
    "serve_app_exposures_dropped_total",
    "Answers whose outcome cannot be reported, because there were too many at a time.",
)
LINES_DROPPED = CounterName(
    "serve_app_access_lines_dropped_total",
    "Lines of the access log that were lost because its writer was behind.",
)
COUNTERS: Mapping[str, CounterName] = {
    each.name: each
    for each in (
        BATCHES,
        TOKENS_COMPUTED,
        TOKENS_PADDING,
        CHANNEL_FALLBACKS,
        FALLBACKS,
        ARM_REQUESTS,
        ARM_FAULTS,
        SHADOWS,
        EXPOSURES_DROPPED,
        LINES_DROPPED,
    )
}
