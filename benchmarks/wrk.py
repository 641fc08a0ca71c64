"""Drives `wrk`, a native load generator that is never the bottleneck here."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import BenchmarkError

TIMEOUT_S = 30
INSTALL = (
    "wrk is not installed. Debian and Ubuntu: apt-get install wrk; macOS: brew install wrk; "
    "else https://github.com/wg/wrk"
)
_GRACE_S = 60.0


@dataclass(frozen=True, slots=True)
class WrkResult:
    """What one run of wrk measured."""

    seconds: float
    answered: int
    """Answers with a status of 2xx or 3xx."""
    refused: int
    """Answers with another status."""
    socket_errors: int
    """Failed connects, reads and writes, and answers later than the time-out."""
    p50_ms: float
    p99_ms: float

    @property
    def requests_per_s(self) -> float:
        """Good answers per second."""
        return self.answered / self.seconds

    @property
    def errors(self) -> int:
        """Everything that was not a good answer."""
        return self.refused + self.socket_errors


def program() -> str:
    """The path of wrk.

    Raises:
        BenchmarkError: it is not installed; says how to.
    """
    path = shutil.which("wrk")
    if path is None:
        raise BenchmarkError(INSTALL)
    return path


def run(url: str, bodies: Sequence[bytes], connections: int, seconds: float) -> WrkResult:
    """Posts JSON bodies in turn over keep-alive connections, each sending as it gets its answer.

    Raises:
        BenchmarkError: wrk is missing, or failed.
    """
    path = program()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        script = Path(folder, "post.lua")
        script.write_bytes(lua_script(bodies))
        command = [
            *(path, "--threads", "1", "--connections", str(connections)),
            *("--duration", f"{max(1, round(seconds))}s", "--timeout", f"{TIMEOUT_S}s"),
            *("--latency", "--script", str(script), url),
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds + _GRACE_S
            )
        except subprocess.TimeoutExpired as exc:
            raise BenchmarkError(f"wrk did not end: {' '.join(command)}") from exc
    if done.returncode != 0:
        raise BenchmarkError(f"wrk failed: {(done.stderr or done.stdout).strip()}")
    return parse(done.stdout)


def lua_script(bodies: Sequence[bytes]) -> bytes:
    """A script for wrk that builds all requests once and then sends them in turn."""
    if not bodies:
        raise BenchmarkError("no bodies to send")
    quoted = b",\n".join(b"  " + _lua_string(body) for body in bodies)
    return (
        b"local bodies = {\n" + quoted + b"\n}\n"
        b"local requests, turn = {}, 0\n"
        b"init = function(arguments)\n"
        b'  local headers = {["Content-Type"] = "application/json"}\n'
        b"  for index, body in ipairs(bodies) do\n"
        b'    requests[index] = wrk.format("POST", nil, headers, body)\n'
        b"  end\n"
        b"end\n"
        b"request = function()\n"
        b"  turn = turn % #requests + 1\n"
        b"  return requests[turn]\n"
        b"end\n"
    )


def _lua_string(text: bytes) -> bytes:
    """A Lua literal of any bytes."""
    plain = set(range(32, 127)) - {ord('"'), ord("\\")}
    return b'"' + b"".join(bytes([c]) if c in plain else b"\\%03d" % c for c in text) + b'"'


_TOTAL = re.compile(r"^\s*(\d+) requests in ([\d.]+)(us|ms|s|m|h),", re.MULTILINE)
_PERCENTILE = re.compile(r"^\s*(50|99)(?:\.\d+)?%\s+([\d.]+)(us|ms|s|m|h)\s*$", re.MULTILINE)
_REFUSED = re.compile(r"^\s*Non-2xx or 3xx responses: (\d+)", re.MULTILINE)
_SOCKET = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
_IN_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3, "h": 3600e3}


def parse(text: str) -> WrkResult:
    """Reads what `wrk --latency` prints.

    Raises:
        BenchmarkError: this is no output of wrk.
    """
    total = _TOTAL.search(text)
    percentiles = {
        name: float(value) * _IN_MS[unit] for name, value, unit in _PERCENTILE.findall(text)
    }
    if total is None or percentiles.keys() != {"50", "99"}:
        raise BenchmarkError(f"not understood what wrk printed:\n{text.strip()}")
    refused = _REFUSED.search(text)
    socket = _SOCKET.search(text)
    requests, bad = int(total[1]), int(refused[1]) if refused else 0
    return WrkResult(
        seconds=float(total[2]) * _IN_MS[total[3]] / 1e3,
        answered=requests - bad,
        refused=bad,
        socket_errors=sum(map(int, socket.groups())) if socket else 0,
        p50_ms=percentiles["50"],
        p99_ms=percentiles["99"],
    )
