"""Drives `wrk`, a native load generator that is never the bottleneck here."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.load import LoadResult

TIMEOUT_S = 30
INSTALL = (
    "wrk is not installed. Debian and Ubuntu: apt-get install wrk; macOS: brew install wrk; "
    "else https://github.com/wg/wrk"
)
JSON = {"content-type": "application/json"}
_GRACE_S = 60.0


def program() -> str:
    """The path of wrk.

    Raises:
        BenchmarkError: it is not installed; says how to.
    """
    path = shutil.which("wrk")
    if path is None:
        raise BenchmarkError(INSTALL)
    return path


def run(
    url: str,
    bodies: Sequence[bytes],
    connections: int,
    seconds: float,
    headers: Mapping[str, str] = JSON,
    users: int = 0,
) -> LoadResult:
    """Posts bodies in turn over keep-alive connections, each sending as it gets its answer.

    Args:
        url: where to.
        bodies: of the requests.
        connections: that are open at a time.
        seconds: for how long.
        headers: of all requests.
        users: requests come from so many in turn (`x-user-id`); 0: from nobody.

    Raises:
        BenchmarkError: wrk is missing, or failed.
    """
    path = program()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        script = write_script(Path(folder), bodies, headers, users)
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


def write_script(
    folder: Path, bodies: Sequence[bytes], headers: Mapping[str, str], users: int = 0
) -> Path:
    """Writes a script for wrk, and the bodies beside it, which it reads once and sends in turn."""
    if not bodies:
        raise BenchmarkError("no bodies to send")
    for index, body in enumerate(bodies):
        (folder / f"body-{index}").write_bytes(body)
    script = folder / "post.lua"
    script.write_text(_LUA % (len(bodies), users, _lua_table(headers), folder))
    return script


def _lua_table(headers: Mapping[str, str]) -> str:
    return "{" + ", ".join(f'["{name}"] = "{value}"' for name, value in headers.items()) + "}"


# A single body needs no call into Lua per request, and none of its copies.
_LUA = """
local count, users, headers, folder = %d, %d, %s, "%s"
local function body(index)
  local file = assert(io.open(folder .. "/body-" .. index, "rb"))
  local bytes = file:read("*a")
  file:close()
  return bytes
end
wrk.method, wrk.headers, wrk.body = "POST", headers, body(0)
local total = math.max(count, users)
if total > 1 then
  local requests, turn = {}, 0
  init = function(arguments)
    for index = 0, total - 1 do
      if users > 0 then wrk.headers["x-user-id"] = "user-" .. index %% users end
      requests[index + 1] = wrk.format("POST", nil, nil, body(index %% count))
    end
  end
  request = function()
    turn = turn %% total + 1
    return requests[turn]
  end
end
"""

_TOTAL = re.compile(r"^\s*(\d+) requests in ([\d.]+)(us|ms|s|m|h),", re.MULTILINE)
_PERCENTILE = re.compile(r"^\s*(50|90|99)(?:\.\d+)?%\s+([\d.]+)(us|ms|s|m|h)\s*$", re.MULTILINE)
_REFUSED = re.compile(r"^\s*Non-2xx or 3xx responses: (\d+)", re.MULTILINE)
_SOCKET = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
_IN_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3, "h": 3600e3}


def parse(text: str) -> LoadResult:
    """Reads what `wrk --latency` prints.

    Raises:
        BenchmarkError: this is no output of wrk.
    """
    total = _TOTAL.search(text)
    percentiles = {
        name: float(value) * _IN_MS[unit] for name, value, unit in _PERCENTILE.findall(text)
    }
    if total is None or percentiles.keys() != {"50", "90", "99"}:
        raise BenchmarkError(f"not understood what wrk printed:\n{text.strip()}")
    refused = _REFUSED.search(text)
    socket = _SOCKET.search(text)
    requests, bad = int(total[1]), int(refused[1]) if refused else 0
    return LoadResult(
        seconds=float(total[2]) * _IN_MS[total[3]] / 1e3,
        answered=requests - bad,
        refused=bad,
        lost=sum(map(int, socket.groups())) if socket else 0,
        p50_ms=percentiles["50"],
        p90_ms=percentiles["90"],
        p99_ms=percentiles["99"],
    )
