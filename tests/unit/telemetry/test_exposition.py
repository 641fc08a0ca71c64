from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from serve_app.domain.arms import ArmCounts, IngressReport, ShadowCounts
from serve_app.domain.inference import VersionKey
from serve_app.telemetry.exposition import render
from serve_app.telemetry.metrics import Gauges, RequestMetrics
from serve_app.telemetry.node import NodeTotals
from tests.requirements import require_program
from tests.unit.telemetry.traces import result, trace

ROOT = Path(__file__).parents[3]
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
KEY = VersionKey("digits", "2")


def totals() -> NodeTotals:
    metrics = RequestMetrics()
    metrics.observe_request(trace(), "ok", 0.0004)
    metrics.observe_request(trace(), "ok", 0.5)
    helped = trace(fallback_from="3", fallback_reason="overloaded")
    metrics.observe_request(helped, "ok", 100.0)
    metrics.observe_batch(KEY, 7, result(transport="direct", tokens=96, padding=8))
    metrics.count_fallback(KEY, "connect")
    metrics.count_report(
        IngressReport("i", 1, {KEY: ArmCounts(5, 2, ())}, {KEY: ShadowCounts(4, 1, 7, 3)})
    )
    for _ in range(9):
        metrics.count_dropped_line()
    gauges = {11: Gauges(2, 30, 5, {KEY: 8}), 12: Gauges(1, 40, 4, {KEY: 4})}
    return NodeTotals(metrics.histograms(), metrics.counters(), gauges)


def families(accept: str = "") -> dict[str, Metric]:
    body, content_type = render(totals(), accept)
    parse = parse_openmetrics if "openmetrics" in content_type else parse_text
    return {family.name: family for family in parse(body.decode())}


def samples(family: Metric) -> dict[tuple[str, ...], float]:
    return {tuple(sample.labels.values()): sample.value for sample in family.samples}


@pytest.mark.parametrize(
    "accept", ["", "*/*", "text/plain", "nonsense;;,", "text/plain;version=x", OPENMETRICS]
)
def test_both_formats_say_the_same(accept: str) -> None:
    found = families(accept)
    assert {name: family.type for name, family in found.items()} == {
        "serve_app_request_duration_seconds": "histogram",
        "serve_app_queue_duration_seconds": "histogram",
        "serve_app_compute_duration_seconds": "histogram",
        "serve_app_batch_size": "histogram",
        "serve_app_inflight": "gauge",
        "serve_app_open_connections": "gauge",
        "serve_app_route_table_revision": "gauge",
        "serve_app_queue_depth_rows": "gauge",
        "serve_app_ingress_processes": "gauge",
        "serve_app_batches": "counter",
        "serve_app_tokens_computed": "counter",
        "serve_app_tokens_padding": "counter",
        "serve_app_channel_fallbacks": "counter",
        "serve_app_fallbacks": "counter",
        "serve_app_arm_requests": "counter",
        "serve_app_arm_faults": "counter",
        "serve_app_shadows": "counter",
        "serve_app_exposures_dropped": "counter",
        "serve_app_access_lines_dropped": "counter",
    }


def test_the_content_type_follows_the_scraper() -> None:
    assert render(totals(), "")[1].startswith("text/plain; version=0.0.4")
    body, content_type = render(totals(), OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")


def test_a_histogram_is_cumulative_and_ends_at_infinity() -> None:
    family = families()["serve_app_request_duration_seconds"]
    buckets = {
        float(sample.labels["le"]): sample.value
        for sample in family.samples
        if sample.name.endswith("_bucket")
    }
    assert buckets[0.00025] == 0
    assert buckets[0.0005] == 1
    assert buckets[0.25] == 1
    assert buckets[0.5] == 2
    assert buckets[60.0] == 2
    assert buckets[float("inf")] == 3
    assert list(buckets.values()) == sorted(buckets.values())
    (total,) = [sample for sample in family.samples if sample.name.endswith("_sum")]
    assert total.value == pytest.approx(100.5004)
    assert total.labels == {
        "model_name": "digits",
        "model_version": "2",
        "protocol": "http",
        "code": "ok",
    }


def test_gauges_stand_by_process_and_the_queue_is_summed_up() -> None:
    found = families()
    assert samples(found["serve_app_inflight"]) == {("11",): 2, ("12",): 1}
    assert samples(found["serve_app_open_connections"]) == {("11",): 30, ("12",): 40}
    assert samples(found["serve_app_route_table_revision"]) == {("11",): 5, ("12",): 4}
    assert samples(found["serve_app_queue_depth_rows"]) == {("digits", "2"): 12}
    assert samples(found["serve_app_ingress_processes"]) == {(): 2}


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_counters_end_in_total(accept: str) -> None:
    found = families(accept)["serve_app_access_lines_dropped"]
    assert [(each.name, each.value) for each in found.samples] == [
        ("serve_app_access_lines_dropped_total", 9)
    ]


def test_counters_have_labels() -> None:
    found = families()
    assert samples(found["serve_app_batches"]) == {("digits", "2", "direct"): 1}
    assert samples(found["serve_app_tokens_padding"]) == {("digits", "2"): 8}
    assert samples(found["serve_app_channel_fallbacks"]) == {("digits", "2", "connect"): 1}


def test_a_counter_without_labels_begins_at_zero() -> None:
    lines = render(NodeTotals(), "")[0].decode().splitlines()
    begun = [line for line in lines if line.startswith("serve_app_") and "_total" in line]
    assert begun == [
        "serve_app_exposures_dropped_total 0.0",
        "serve_app_access_lines_dropped_total 0.0",
    ]


def test_a_millisecond_clock_as_revision_keeps_its_digits() -> None:
    revision = 1_795_467_600_123
    body, _ = render(NodeTotals(gauges={1: Gauges(route_table_revision=revision)}), "")
    (family,) = [f for f in parse_text(body.decode()) if f.name.endswith("_revision")]
    assert samples(family) == {("1",): revision}


def test_the_reference_lists_every_metric_with_its_labels() -> None:
    text = (ROOT / "docs/reference/metrics.md").read_text()
    documented = {
        name: (kind, set(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in re.findall(
            r"^\| `(serve_app_\w+)` \| (\w+) \| ([^|]*) \|", text, re.MULTILINE
        )
    }
    exposed = {
        name + "_total" * (family.type == "counter"): (
            family.type,
            {key for sample in family.samples for key in sample.labels} - {"le"},
        )
        for name, family in families().items()
    }
    assert documented == exposed


def test_promtool_has_nothing_to_say() -> None:
    promtool = require_program("promtool", "prometheus")
    body, _ = render(totals(), "")
    done = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
