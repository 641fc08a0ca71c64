"""The open loop in a process of its own, so that whoever watches the server does not disturb it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.open_loop import BEGUN
from benchmarks.running import ROOT, Running, environment

_END_S = 60.0


class Generator:
    """Open-loop load of digits on a server.

    Args:
        process: of `benchmarks.open_loop`.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def wait(self, timeout_s: float) -> bool:
        """Whether it ends within this time."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def result(self) -> dict[str, Any]:
        """What it measured (`OpenLoopResult`); ends the load if it still runs.

        Raises:
            BenchmarkError: it failed.
        """
        self._process.terminate()
        if not self.wait(_END_S):
            raise BenchmarkError("the open loop did not end")
        # Not communicate(): it would miss what has been read ahead with the first line.
        found: dict[str, Any] = json.loads(_rest(self._process))
        return found


@contextmanager
def generating(server: Running, rate: float, seconds: float) -> Iterator[Generator]:
    """Loads a server at a constant rate, from now on and for so many seconds at most."""
    port = server.url.rpartition(":")[2]
    command = [sys.executable, "-m", "benchmarks.open_loop", "--port", port]
    command += ["--rate", f"{rate:g}", "--seconds", f"{seconds:g}"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            if process.stdout is None or process.stdout.readline().strip() != BEGUN:
                process.wait(_END_S)
                _rest(process)
                raise BenchmarkError("the open loop ended before it began")
            yield Generator(process)
        finally:
            process.kill()


def _rest(process: subprocess.Popen[str]) -> str:
    said, complaint = (
        "" if pipe is None else pipe.read() for pipe in (process.stdout, process.stderr)
    )
    if process.returncode != 0:
        raise BenchmarkError(f"the open loop failed:\n{complaint[-2000:]}")
    return said
