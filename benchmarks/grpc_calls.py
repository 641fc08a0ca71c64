"""Drives `benchmarks.grpc_load`, which makes gRPC calls in a process of its own."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.load import LoadResult
from benchmarks.running import ROOT, environment

_GRACE_S = 60.0


def run(target: str, connections: int, seconds: float) -> LoadResult:
    """Calls digits over so many connections, each calling again as it gets its answer.

    Raises:
        BenchmarkError: the load generator failed.
    """
    command = [sys.executable, "-m", "benchmarks.grpc_load", "--target", target]
    command += ["--connections", str(connections), "--seconds", f"{seconds:g}"]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=seconds + _GRACE_S,
        )
    except subprocess.TimeoutExpired as exc:
        raise BenchmarkError(f"{' '.join(command)} did not end") from exc
    if done.returncode != 0:
        raise BenchmarkError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return parse(done.stdout)


def parse(text: str) -> LoadResult:
    """Reads the JSON that it prints.

    Raises:
        BenchmarkError: this is none.
    """
    try:
        found: dict[str, Any] = json.loads(text)
        return LoadResult(
            seconds=found["seconds"],
            answered=found["answered"],
            refused=found["errors"],
            lost=0,
            p50_ms=found["p50_ms"],
            p90_ms=found["p90_ms"],
            p99_ms=found["p99_ms"],
        )
    except (ValueError, KeyError, TypeError) as exc:
        raise BenchmarkError(f"not understood what grpc_load printed:\n{text[:2000]}") from exc


def is_up(port: int) -> bool:
    """Whether something listens on this port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True
