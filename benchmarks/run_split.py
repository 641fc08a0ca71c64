"""What it costs to split traffic: two versions, sticky by header, statistics per arm.

Both versions have the same weights. A version that is pinned in the URL is neither chosen nor
counted. With 100 and 0 percent every request is, and batches are as large as those of one version;
with 50 and 50 two queues have half of the arrivals each.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from benchmarks import digits, wrk
from benchmarks.cluster import Cluster, cluster, prepare_models
from benchmarks.comparison import Comparison
from benchmarks.measure import observe, spread, warm_up
from benchmarks.run_digits import OVERRIDES
from benchmarks.settings import Settings

PINNED, ONE_ARM, SPLIT = "pinned", "100 / 0", "50 / 50"
CONNECTIONS = (16, 64)
USERS = 1000
PATH = "/v2/models/digits/infer"
SETTLE_S = 1.0
"""From a change of weights until every ingress has it."""
WEIGHTS = {ONE_ARM: {"2": 100, "twin": 0}, SPLIT: {"2": 50, "twin": 50}}
TWINS = (
    *OVERRIDES,
    "+models.digits.versions.twin=${models.digits.versions.2}",
    "models.digits.release={candidates: [{version: '2', weight: 50}, {version: twin, weight: 50}],"
    " sticky: {by: header, name: x-user-id}}",
)


def run(settings: Settings) -> dict[str, Any]:
    """Measures the three ways in turns on one cluster."""
    requests = digits.bodies()
    comparison = Comparison("split", "connections", settings)
    rows: dict[str, dict[str, dict[str, list[float]]]] = {}

    def visit(name: str, path: str, repeat: int) -> None:
        warm_up(server, path, requests)
        for count in settings.connections or CONNECTIONS:
            before = batches(server)
            load = partial(wrk.run, server.url + path, requests, count, settings.seconds)
            comparison.add(name, count, observe(server, partial(load, users=USERS)))
            at = rows.setdefault(name, {}).setdefault(str(count), {})
            for version, mean in mean_rows(before, batches(server)).items():
                at.setdefault(version, []).append(mean)

    with tempfile.TemporaryDirectory(prefix="bench-split-") as folder:
        home = Path(folder, "home")
        prepare_models(home)
        with cluster(TWINS, home, digits.PATH, requests[0]) as server:
            ways = {name: partial(_way, server, name) for name in (PINNED, *WEIGHTS)}
            comparison.in_turns(ways, visit)
    return comparison.result(
        model="digits version 2 and its twin, one row of 64 numbers, OIP JSON",
        users=USERS,
        batch_rows={
            name: {
                point: {version: spread(found) for version, found in by_version.items()}
                for point, by_version in by_point.items()
            }
            for name, by_point in rows.items()
        },
    )


@contextmanager
def _way(server: Cluster, name: str) -> Iterator[str]:
    """The path that requests go to, with the weights in force."""
    weights = WEIGHTS.get(name)
    if weights is None:
        yield digits.PATH
        return
    url = f"{server.url}/admin/v1/models/digits/traffic"
    httpx.post(url, json={"weights": weights}, trust_env=False).raise_for_status()
    time.sleep(SETTLE_S)
    yield PATH


Batches = Mapping[str, tuple[float, float]]
"""Version -> batches and rows so far."""
_BATCH_SIZE = re.compile(r"^serve_app_batch_size_(count|sum)\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def batches(server: Cluster) -> Batches:
    """What the metrics of a cluster say about the batches of digits."""
    return read_batches(httpx.get(f"http://{server.ports.metrics}/metrics", trust_env=False).text)


def read_batches(text: str, model: str = "digits") -> Batches:
    """Reads them from the exposition."""
    found: dict[str, dict[str, float]] = {}
    for kind, labels, value in _BATCH_SIZE.findall(text):
        of = dict(_LABEL.findall(labels))
        if of["model_name"] == model:
            found.setdefault(of["model_version"], {})[kind] = float(value)
    return {version: (each["count"], each["sum"]) for version, each in found.items()}


def mean_rows(before: Batches, after: Batches) -> dict[str, float]:
    """Rows per batch of the versions that computed any in between."""
    found = {}
    for version, (count, rows) in after.items():
        count_before, rows_before = before.get(version, (0.0, 0.0))
        if count > count_before:
            found[version] = (rows - rows_before) / (count - count_before)
    return found
