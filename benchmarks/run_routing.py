"""What releases cost with ten thousand models: choosing a version, counting, publishing a table.

No cluster: all of it is CPU time of one process, so that nothing else on the machine counts.
"""

from __future__ import annotations

import gc
import pickle
import random
from collections.abc import Callable, Mapping
from time import process_time
from typing import Any

from benchmarks.measure import spread
from benchmarks.settings import Settings
from deployments.naming import REPLICA, application_name
from deployments.publication import Publication
from deployments.routes import RouteCompiler
from serve_app.arms import ArmStatistics
from serve_app.config.model import ModelConfig
from serve_app.domain.caller import HttpCaller
from serve_app.domain.inference import VersionKey
from serve_app.domain.routing import Endpoint, RouteTable, choose_version

MODELS = 10_000
WEIGHTS = {"1": 50, "2": 30, "3": 20}
CHOICES = 20_000

Endpoints = dict[VersionKey, tuple[Endpoint, ...]]


def run(settings: Settings) -> dict[str, Any]:
    """Measures everything some times."""
    settings.tell(f"routing: {MODELS:,} models x {len(WEIGHTS)} versions")
    measured: dict[str, list[float]] = {}
    models = {f"model-{number}": model(number) for number in range(MODELS)}
    endpoints = announced(models)
    for _ in range(settings.repeats):
        for name, value in measure(models, endpoints).items():
            measured.setdefault(name, []).append(value)
    return {
        "models": MODELS,
        "versions": len(WEIGHTS),
        "repeats": settings.repeats,
        **{name: spread(values) for name, values in measured.items()},
    }


def model(number: int) -> ModelConfig:
    """A model that nobody shares anything with, as if it came from a file of its own."""
    versions = {
        version: {
            "platform": "onnx",
            "predictor": {"_target_": "serve_app.predictors.echo.Echo"},
            "metadata": {"source": f"file {number}"},
        }
        for version in WEIGHTS
    }
    candidates = [{"version": version, "weight": weight} for version, weight in WEIGHTS.items()]
    return ModelConfig.model_validate(
        {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}],
            "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}],
            "versions": versions,
            "release": {
                "candidates": candidates,
                "sticky": {"by": "header", "name": "x-user-id"},
            },
        }
    )


def announced(models: Mapping[str, ModelConfig]) -> Endpoints:
    """One replica of each version, which has announced itself."""
    keys = [VersionKey(name, version) for name, each in models.items() for version in each.versions]
    return {key: (Endpoint("node", f"/tmp/{key}.sock", f"replica-{key}", 2),) for key in keys}


def measure(models: Mapping[str, ModelConfig], endpoints: Endpoints) -> dict[str, float]:
    """One run: microseconds per request, seconds per table."""
    compiler, publication = RouteCompiler(), Publication()
    counts = {(application_name(key), REPLICA): 1 for key in endpoints}
    facts = {key: {"nodes": "1"} for key in endpoints}

    def publish(seen: int, announcements: Endpoints) -> bytes:
        table = compiler.compile(models, counts, facts, announcements)
        publication.replace(table, publication.table.revision + 1)
        return pickle.dumps(publication.since(seen), protocol=5)

    whole_s, whole = timed(lambda: publish(0, endpoints))
    first = next(iter(endpoints))
    change_s, change = timed(lambda: publish(1, endpoints | {first: ()}))
    take_s, table = timed(lambda: pickle.loads(whole).applied_to(RouteTable(0)))
    take_change_s, table = timed(lambda: pickle.loads(change).applied_to(table))
    return {
        "publish_s": whole_s,
        "publish_change_s": change_s,
        "take_s": take_s,
        "take_change_s": take_change_s,
        **requests(table),
    }


def requests(table: RouteTable) -> dict[str, float]:
    """What one request costs, to any of the models and from any user."""
    chosen = random.Random(4).choices(list(table.models.values()), k=CHOICES)
    # Not one for each choice: the headers of a request have just been read.
    users = [HttpCaller({b"x-user-id": b"user-%d" % each}, b"") for each in range(100)]
    callers = users * (CHOICES // len(users))

    def choose() -> list[VersionKey]:
        return [
            choose_version(route, None, "id", caller).route.key
            for route, caller in zip(chosen, callers, strict=True)
        ]

    def count() -> None:
        for key in keys:
            arms.count(key, 0.002)

    choose()  # derives what each model's requests need
    choose_s, keys = timed(choose)
    arms = ArmStatistics()
    count()
    count_s, _ = timed(count)
    return {"choose_us": choose_s / CHOICES * 1e6, "count_us": count_s / CHOICES * 1e6}


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of CPU that something takes, and what comes of it."""
    gc.collect()
    began = process_time()
    found = work()
    return process_time() - began, found
