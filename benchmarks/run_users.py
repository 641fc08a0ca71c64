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


def run(host: str | None, users: int, seconds: float, spikes: bool) -> int:
    """Returns Locust's exit code: 0 if no answer was wrong, late or missing."""
    file = "benchmarks/locustfile_spikes.py" if spikes else "benchmarks/locustfile.py"
    # A shape says itself how fast users start.
    pace = [] if spikes else ["--spawn-rate", str(users)]
    with ExitStack() as stack:
        if host is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-users-"))
            home, probe = Path(folder, "home"), digits.bodies(1)[0]
            host = stack.enter_context(cluster((), home, digits.PATH, probe)).url
        command = [
            *(sys.executable, "-m", "locust", "-f", file, "--host", host),
            *("--headless", "--only-summary", "--users", str(users), *pace),
            *("--run-time", f"{max(1, round(seconds))}s"),
        ]
        return subprocess.run(command, cwd=ROOT).returncode
