"""One cluster in several configurations: how many ingresses, which transport."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import digits
from benchmarks.cluster import cluster, prepare_models
from benchmarks.comparison import Start
from benchmarks.run_digits import OVERRIDES, compare
from benchmarks.settings import Settings


def ingresses(settings: Settings) -> dict[str, Any]:
    """From 1 to 3 ingress replicas."""
    return _variants(
        "ingresses",
        {f"{count} ingress": f"ingress.replicas={count}" for count in (1, 2, 3)},
        settings.connections or (16, 64, 256),
        settings,
    )


def transports(settings: Settings) -> dict[str, Any]:
    """The direct channel against handle calls."""
    return _variants(
        "transports",
        {name: f"cluster.transport={name}" for name in ("auto", "handle")},
        settings.connections or (1, 16, 64),
        settings,
    )


def _variants(
    title: str, overrides: Mapping[str, str], connections: tuple[int, ...], settings: Settings
) -> dict[str, Any]:
    probe = digits.bodies(1)[0]
    with tempfile.TemporaryDirectory(prefix=f"bench-{title}-") as folder:
        home = Path(folder, "home")
        prepare_models(home)

        def start(override: str) -> Start:
            return lambda: cluster((*OVERRIDES, override), home, digits.PATH, probe)

        servers = {name: start(override) for name, override in overrides.items()}
        found = compare(title, servers, dict.fromkeys(servers, connections), settings)
    return found.result(model="digits version 2, one row of 64 numbers, OIP JSON")
