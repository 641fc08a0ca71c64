"""How long it takes from `serve-app up` to the first answer, on an installed environment."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks import digits
from benchmarks.cluster import cluster
from benchmarks.measure import spread
from benchmarks.settings import Settings


def run(settings: Settings) -> dict[str, Any]:
    """Starts the default config: with an empty home (it trains the example models), and again."""
    seconds: dict[str, list[float]] = {"first": [], "again": []}
    probe = digits.bodies(1)[0]
    for repeat in range(settings.repeats):
        with tempfile.TemporaryDirectory(prefix="bench-startup-") as folder:
            for start, found in seconds.items():
                settings.tell(f"startup, repeat {repeat + 1} of {settings.repeats}: {start}")
                with cluster((), Path(folder, "home"), digits.PATH, probe) as server:
                    found.append(server.start_s)
    return {
        "config": "the default",
        "repeats": settings.repeats,
        "first_answer_s": {start: spread(found) for start, found in seconds.items()},
    }
