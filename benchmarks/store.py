"""The JSON file that keeps all results."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.musts import evaluate

LIBRARIES = ("ray", "torch", "uvicorn", "uvloop", "httptools", "grpcio", "orjson", "numpy")
Results = Mapping[str, Any]


def context() -> dict[str, Any]:
    """Where and when; figures of different machines must not be compared."""
    return {
        "measured": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def merge(path: Path, results: Results) -> dict[str, Any]:
    """The stored results with the scenarios measured now in the place of their former ones."""
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError):
        before = {}
    before = before if isinstance(before, dict) else {}
    return {**before, **{name: {**of, "on": context()} for name, of in results.items()}}


def write_json(path: Path, results: Results) -> dict[str, Any]:
    """Writes results and verdicts; returns all that the file holds now."""
    merged = merge(path, results)
    merged.pop("musts", None)
    merged["musts"] = [asdict(verdict) for verdict in evaluate(merged)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(merged, indent=2, ensure_ascii=False) + "\n")
    return merged
