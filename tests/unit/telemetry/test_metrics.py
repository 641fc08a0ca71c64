from __future__ import annotations

import pytest

from serve_app.config.ingress import RequestLimits
from serve_app.dataplane import DataPlane
from serve_app.domain.arms import ArmCounts, IngressReport, ShadowCounts
from serve_app.domain.inference import VersionKey
from serve_app.telemetry import metrics as metrics_module
from serve_app.telemetry.metrics import OTHER, Gauges, Histogram, RequestMetrics
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
    SHADOWS,
    TOKENS_COMPUTED,
    TOKENS_PADDING,
)
from serve_app.testing import FakeGateway, route_table
from tests.unit.telemetry.traces import result, trace

KEY = VersionKey("digits", "2")


@pytest.fixture
def metrics() -> RequestMetrics:
    return RequestMetrics()


@pytest.mark.parametrize(
    ("value", "bucket"),
    [(-1.0, 0), (0.0, 0), (1.0, 0), (1.0001, 1), (2.0, 1), (2.5, 2), (float("inf"), 2)],
)
def test_a_value_on_a_bound_belongs_to_the_bucket_below(value: float, bucket: int) -> None:
    histogram = Histogram((1.0, 2.0))
    histogram.observe(value)
    assert [index for index, count in enumerate(histogram.counts) if count] == [bucket]
    assert histogram.total == value


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_bounds_grow(name: str) -> None:
    bounds = HISTOGRAMS[name].bounds
    assert list(bounds) == sorted(set(bounds))


def test_a_request_is_counted_by_model_version_protocol_and_code(metrics: RequestMetrics) -> None:
    for protocol, code, seconds in (
        ("http", "ok", 0.001),
        ("http", "ok", 0.1),
        ("grpc", "ok", 0.001),
        ("http", "overloaded", 0.0),
    ):
        metrics.observe_request(trace(protocol), code, seconds)
    series = metrics.histograms()[REQUEST_SECONDS.name]
    assert {labels: sum(each.counts) for labels, each in series.items()} == {
        ("digits", "2", "http", "ok"): 2,
        ("digits", "2", "grpc", "ok"): 1,
        ("digits", "2", "http", "overloaded"): 1,
    }
    assert series["digits", "2", "http", "ok"].total == pytest.approx(0.101)


def test_the_queue_is_counted_by_version_over_all_protocols(metrics: RequestMetrics) -> None:
    metrics.observe_request(trace("http", queue_s=0.5), "ok", 1.0)
    metrics.observe_request(trace("grpc", queue_s=0.25), "model_failed", 1.0)
    (series,) = metrics.histograms()[QUEUE_SECONDS.name].values()
    assert sum(series.counts) == 2
    assert series.total == 0.75


def test_a_request_that_met_no_batch_did_not_wait(metrics: RequestMetrics) -> None:
    metrics.observe_request(trace(batch_rows=0, queue_s=0.0), "overloaded", 0.1)
    assert metrics.histograms()[QUEUE_SECONDS.name] == {}


def test_a_request_for_an_unknown_model_has_empty_labels(metrics: RequestMetrics) -> None:
    metrics.observe_request(trace(model="", version="", batch_rows=0), "model_not_found", 0.1)
    assert set(metrics.histograms()[REQUEST_SECONDS.name]) == {("", "", "http", "model_not_found")}


def test_a_batch_is_counted_once(metrics: RequestMetrics) -> None:
    metrics.observe_batch(KEY, 32, result(0.5))
    metrics.observe_batch(KEY, 1, result(0.25))
    histograms = metrics.histograms()
    rows, compute = histograms[BATCH_ROWS.name][KEY], histograms[COMPUTE_SECONDS.name][KEY]
    assert (sum(rows.counts), rows.total) == (2, 33)
    assert (sum(compute.counts), compute.total) == (2, 0.75)


def test_batches_are_counted_by_transport(metrics: RequestMetrics) -> None:
    for transport in ("direct", "handle", "direct"):
        metrics.observe_batch(KEY, 1, result(transport=transport))
    assert metrics.counters()[BATCHES.name] == {(*KEY, "direct"): 2, (*KEY, "handle"): 1}


def test_padding_is_counted_where_the_model_tells(metrics: RequestMetrics) -> None:
    metrics.observe_batch(KEY, 1, result(tokens=100, padding=7))
    metrics.observe_batch(KEY, 1, result(tokens=50, padding=0))
    metrics.observe_batch(VersionKey("digits", "1"), 1, result())
    counters = metrics.counters()
    assert counters[TOKENS_COMPUTED.name] == {KEY: 150}
    assert counters[TOKENS_PADDING.name] == {KEY: 7}


def test_fallbacks_are_counted_by_reason(metrics: RequestMetrics) -> None:
    for reason in ("connect", "busy", "connect"):
        metrics.count_fallback(KEY, reason)
    found = metrics.counters()[CHANNEL_FALLBACKS.name]
    assert found == {(*KEY, "connect"): 2, (*KEY, "busy"): 1}


def test_a_counter_that_counted_nothing_has_no_series(metrics: RequestMetrics) -> None:
    assert metrics.counters() == {name: {} for name in COUNTERS}
    metrics.count_dropped_line()
    assert metrics.counters()[LINES_DROPPED.name] == {(): 1}


def test_the_number_of_series_is_bounded(
    metrics: RequestMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_module, "MAX_SERIES", 3)
    for number in range(50):
        version = str(number)
        helped = trace(version=version, fallback_from=version, fallback_reason="not_ready")
        metrics.observe_request(helped, "ok", 0.001)
        key = VersionKey("digits", version)
        shadows = {key: ShadowCounts(1, 1, 0, 0)}
        metrics.count_report(IngressReport("i", 1, {key: ArmCounts(2, 1, ())}, shadows))
        metrics.observe_batch(VersionKey("digits", version), 1, result(tokens=5, padding=1))
        metrics.count_fallback(VersionKey("digits", version), "connect")
    for name, series in metrics.histograms().items():
        assert len(series) == 4, name
        assert sum(sum(each.counts) for each in series.values()) == 50, name
        (other,) = [each for labels, each in series.items() if labels[:2] == (OTHER, OTHER)]
        assert sum(other.counts) == 47, name
    for name, values in metrics.counters().items():
        if COUNTERS[name].labels:
            assert len(values) == 4, name
            (rest,) = [count for labels, count in values.items() if labels[:2] == (OTHER, OTHER)]
            assert rest == sum(values.values()) * 47 // 50, name


def test_what_became_of_requests_by_arm(metrics: RequestMetrics) -> None:
    key = VersionKey("digits", "2")
    report = IngressReport(
        "i", 1, {key: ArmCounts(5, 2, ())}, {key: ShadowCounts(4, 1, 7, 3)}, exposures_dropped=6
    )
    for _ in range(2):
        metrics.count_report(report)
    counts = metrics.counters()
    assert counts[ARM_REQUESTS.name] == {key: 10}
    assert counts[ARM_FAULTS.name] == {key: 4}
    results = {"agreed": 6, "disagreed": 2, "dropped": 14, "failed": 6}
    assert counts[SHADOWS.name] == {(*key, name): count for name, count in results.items()}
    assert counts[EXPOSURES_DROPPED.name] == {(): 12}


def test_a_fallback_is_counted_for_the_version_that_was_chosen(metrics: RequestMetrics) -> None:
    helped = trace(version="1", fallback_from="2", fallback_reason="model_failed")
    metrics.observe_request(helped, "ok", 0.001)
    metrics.observe_request(trace(), "ok", 0.001)
    assert metrics.counters()[FALLBACKS.name] == {("digits", "2", "model_failed"): 1}


def test_gauges_are_zero_until_something_is_watched(metrics: RequestMetrics) -> None:
    assert metrics.gauges() == Gauges()


async def test_gauges_are_read_from_the_data_plane(metrics: RequestMetrics) -> None:
    plane = DataPlane(FakeGateway(), RequestLimits())
    connections = 3
    metrics.watch(plane, lambda: connections)
    plane.update(route_table(revision=42))
    assert metrics.gauges() == Gauges(0, 3, 42, {})
    connections = 4
    plane.in_flight = 2
    assert metrics.gauges() == Gauges(2, 4, 42, {})
