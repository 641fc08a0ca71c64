"""What it costs to split traffic: two versions, sticky by header, statistics per arm.

All versions have the same weights. A version that is pinned in the URL is neither chosen nor
counted. With 100 and 0 percent every request is, and batches are as large as those of one version;
with 50 and 50 two queues have half of the arrivals each. Of versions whose batches are capped,
batches are as large either way, as long as the callers suffice to fill them.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from benchmarks import digits, wrk
from benchmarks.cluster import Cluster, cluster, prepare_models
from benchmarks.comparison import Comparison
from benchmarks.measure import observe, spread, warm_up
from benchmarks.run_digits import OVERRIDES
from benchmarks.settings import Settings

PINNED, ONE_ARM, SPLIT = "pinned", "100 / 0", "50 / 50"
CAP = 8
PINNED_CAPPED, SPLIT_CAPPED = f"pinned, {CAP} rows", f"50 / 50, {CAP} rows"
CONNECTIONS = (16, 64)
USERS = 1000
SETTLE_S = 1.0
"""From a change of weights until every ingress has it."""


class Way(NamedTuple):
    """How requests come to their version."""

    weights: Mapping[str, int] = {}
    pinned: str = ""

    @property
    def path(self) -> str:
        """Where they are posted."""
        version = f"/versions/{self.pinned}" if self.pinned else ""
        return f"/v2/models/digits{version}/infer"


WAYS = {
    PINNED: Way(pinned="2"),
    ONE_ARM: Way({"2": 100}),
    SPLIT: Way({"2": 50, "twin": 50}),
    PINNED_CAPPED: Way(pinned="capped"),
    SPLIT_CAPPED: Way({"capped": 50, "capped-twin": 50}),
}
_VERSIONS = "models.digits.versions"
_SAME = ("resources", "predictor", "artifact", "warm_up")
_CAPPED = ", ".join(
    [
        "platform: pytorch",
        f"batching: {{max_rows: {CAP}}}",
        *(f"{field}: '${{{_VERSIONS}.2.{field}}}'" for field in _SAME),
    ]
)
TWINS = (
    *OVERRIDES,
    "cluster.num_cpus=4",
    *(f"~{_VERSIONS}.{version}" for version in ("1", "3")),
    f"+{_VERSIONS}.twin=${{{_VERSIONS}.2}}",
    *(f"+{_VERSIONS}.{version}={{{_CAPPED}}}" for version in ("capped", "capped-twin")),
    "models.digits.release={candidates: [{version: '2', weight: 100}, {version: twin, weight: 0}, "
    "{version: capped, weight: 0}, {version: capped-twin, weight: 0}], "
    "sticky: {by: header, name: x-user-id}}",
)


def run(settings: Settings) -> dict[str, Any]:
    """Measures all ways in turns on one cluster."""
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
            ways = {name: partial(_taking, server, way) for name, way in WAYS.items()}
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
def _taking(server: Cluster, way: Way) -> Iterator[str]:
    """The path that requests go to, with the weights in force."""
    if way.weights:
        url = f"{server.url}/admin/v1/models/digits/traffic"
        httpx.post(url, json={"weights": way.weights}, trust_env=False).raise_for_status()
        time.sleep(SETTLE_S)
    yield way.path


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
