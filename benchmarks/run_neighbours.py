"""What a model notices when another one is loaded, or replaced, beside it.

An open loop on digits goes on meanwhile; quiet is the same load when nothing else happens. The
command that changes the cluster shares its cores here and is therefore niced.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import digits
from benchmarks.cluster import Cluster, cluster, prepare_models
from benchmarks.generator import generating
from benchmarks.measure import spread, warm_up
from benchmarks.run_digits import OVERRIDES
from benchmarks.settings import Settings

RATE = 200.0
QUIET_SHARE = 3.0
"""The quiet time, in `--seconds`: about as long as a change."""
LONGEST_S = 300.0
REST_S = 3.0
"""After a change, until processes that ended and helpers that began are at rest."""
FIGURES = ("p50_ms", "p99_ms", "max_ms", "sent_late_p99_ms")

_COMMON = (*OVERRIDES[1:], "cluster.num_cpus=4")
ALONE = ("model=[digits]", *_COMMON)
LOADED = ("model=[digits,minilm]", *_COMMON)
REPLACED = (*LOADED, "models.minilm.versions.1.predictor.max_tokens=255")
QUIET = "quiet"
CHANGES = {"load": LOADED, "replace": REPLACED}


def run(settings: Settings) -> dict[str, Any]:
    """Measures quiet, a load and a replacement some times on one cluster."""
    requests = digits.bodies()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in (QUIET, *CHANGES)}
    quiet_s = QUIET_SHARE * settings.seconds
    with tempfile.TemporaryDirectory(prefix="bench-neighbours-") as folder:
        home = Path(folder, "home")
        prepare_models(home)
        with cluster(ALONE, home, digits.PATH, requests[0]) as server:
            warm_up(server, digits.PATH, requests)
            for repeat in range(settings.repeats):
                settings.tell(f"neighbours, repeat {repeat + 1} of {settings.repeats}")
                found[QUIET].append(_while(server, partial(time.sleep, quiet_s)))
                for name, overrides in CHANGES.items():
                    found[name].append(_while(server, partial(server.apply, *overrides)))
                server.apply(*ALONE)
                time.sleep(REST_S)
    return {
        "model": f"digits version 2, {RATE:g} requests/s; the other is minilm",
        "repeats": settings.repeats,
        "rate_per_s": RATE,
        "events": {
            name: {figure: spread(one[figure] for one in each) for figure in ("s", *FIGURES)}
            for name, each in found.items()
        },
        "errors": int(sum(one["errors"] for each in found.values() for one in each)),
    }


def _while(server: Cluster, event: Callable[[], None]) -> dict[str, float]:
    """Latencies of the open loop while something happens, and how long that took."""
    with generating(server, RATE, LONGEST_S) as generator:
        began = time.monotonic()
        event()
        seconds = time.monotonic() - began
        result = generator.result()
    time.sleep(REST_S)
    figures = {figure: result[figure] for figure in FIGURES}
    return {"s": seconds, "errors": result["refused"] + result["lost"], **figures}
