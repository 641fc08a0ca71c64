"""Runs the users of `locustfile.py` against the default config, or a server that runs already."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks import digits
from benchmarks.cluster import cluster
from benchmarks.running import ROOT


def run(host: str | None, users: int, seconds: float) -> int:
    """Returns Locust's exit code: 0 if no answer was wrong, late or missing."""
    with ExitStack() as stack:
        if host is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-users-"))
            home, probe = Path(folder, "home"), digits.bodies(1)[0]
            host = stack.enter_context(cluster((), home, digits.PATH, probe)).url
        command = [
            *(sys.executable, "-m", "locust", "-f", "benchmarks/locustfile.py", "--host", host),
            *("--headless", "--only-summary", "--users", str(users)),
            *("--spawn-rate", str(users), "--run-time", f"{max(1, round(seconds))}s"),
        ]
        return subprocess.run(command, cwd=ROOT).returncode
