"""Where the microseconds of the ingress go: py-spy on the running process, by layer.

(Not called `profile`: Locust puts this folder on the search path, where it would hide the standard
library's module.)
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import cpu, digits, wrk
from benchmarks.cluster import cluster
from benchmarks.errors import BenchmarkError
from benchmarks.layers import LAYERS, NATIVE, layer, place
from benchmarks.measure import warm_up
from benchmarks.run_digits import OVERRIDES
from benchmarks.running import Running

CONNECTIONS = 64
SAMPLES_PER_S = 250
SHOWN = 30
NAME = "ingress-profile"

Threads = Mapping[tuple[int, str], float]
"""Thread id and name -> CPU µs per request."""
Stacks = Counter[tuple[int, tuple[str, ...]]]
"""Thread id and stack, outermost frame first -> samples."""


@dataclass(frozen=True, slots=True)
class Profile:
    """CPU µs per request of one process."""

    requests_per_s: float
    samples: int
    layers: dict[str, float]
    functions: dict[tuple[str, str], float]
    """``path:function`` and layer -> time in the function itself, callees with a frame excluded."""

    @property
    def total_us(self) -> float:
        """All layers together."""
        return sum(self.layers.values())


def run(folder: Path, seconds: float, tell: Callable[[str], None]) -> Profile:
    """Starts the cluster, loads it with 64 connections, and writes the report into `folder`."""
    requests = digits.bodies()
    with (
        tempfile.TemporaryDirectory(prefix="bench-profile-") as home,
        cluster(OVERRIDES, Path(home), digits.PATH, requests[0]) as server,
    ):
        found = cpu.find([server.pid], "ingress")
        if len(found) != 1:
            raise BenchmarkError(f"expected one ingress process, found {found}")
        warm_up(server, digits.PATH, requests)
        tell(f"CPU per thread, {seconds:.0f} s without the profiler")
        threads, rate = thread_costs(server, found[0], requests, seconds)
        tell(f"py-spy, {seconds:.0f} s")
        stacks = record(server, found[0], requests, seconds)
    profile = attribute(stacks, threads, rate)
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / f"{NAME}.svg"
    draw(profile, picture)
    (folder / f"{NAME}.md").write_text(markdown(profile, picture.name))
    tell(markdown(profile, picture.name))
    return profile


def thread_costs(
    server: Running, pid: int, requests: list[bytes], seconds: float
) -> tuple[Threads, float]:
    """CPU µs per request of each thread of a process under load, and the requests per second."""
    before = cpu.thread_seconds(pid)
    result = wrk.run(server.url + digits.PATH, requests, CONNECTIONS, seconds)
    after = cpu.thread_seconds(pid)
    costs = {
        thread: (used - before.get(thread, 0.0)) / max(1, result.answered) * 1e6
        for thread, used in after.items()
    }
    return costs, result.requests_per_s


def record(server: Running, pid: int, requests: list[bytes], seconds: float) -> Stacks:
    """Samples the stacks of a process while it is under load.

    Raises:
        BenchmarkError: py-spy is missing, or may not look.
    """
    beside = Path(sys.executable).with_name("py-spy")
    program = str(beside) if beside.exists() else shutil.which("py-spy")
    if program is None:
        raise BenchmarkError("py-spy is not installed: pip install py-spy")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        raw = Path(folder, "stacks.txt")
        command = [program, "record", "--pid", str(pid), "--format", "raw", "--threads"]
        command += ["--rate", str(SAMPLES_PER_S), "--duration", str(max(1, round(seconds)))]
        spy = subprocess.Popen(
            [*command, "--output", str(raw)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            wrk.run(server.url + digits.PATH, requests, CONNECTIONS, seconds + 2)
            said, _ = spy.communicate(timeout=seconds + 60)
        finally:
            spy.kill()
            spy.wait()
        if not raw.exists():
            raise BenchmarkError(f"py-spy failed (it needs root or ptrace rights):\n{said}")
        return parse(raw.read_text())


_THREAD = re.compile(r"^thread \((0x[0-9A-Fa-f]+|\d+)\)")


def parse(raw: str) -> Stacks:
    """Reads py-spy's raw format: one line per stack, frames divided by ``;``, then the count."""
    stacks: Stacks = Counter()
    for line in raw.splitlines():
        path, _, count = line.rpartition(" ")
        first, *frames = path.split(";")
        thread = _THREAD.match(first)
        if thread is None or not count.isdigit():
            raise BenchmarkError(f"not understood what py-spy wrote: {line[:200]}")
        stacks[int(thread[1], 0), tuple(frames)] += int(count)
    return stacks


def attribute(stacks: Stacks, threads: Threads, requests_per_s: float) -> Profile:
    """Shares out the CPU time of each thread over the stacks that were seen in it.

    A thread in which py-spy saw no Python belongs to Ray's or gRPC's native code.
    """
    seen: Counter[int] = Counter()
    for (tid, _), count in stacks.items():
        seen[tid] += count
    layers = dict.fromkeys(LAYERS, 0.0)
    functions: dict[tuple[str, str], float] = {}

    def add(where: str, name: str, cost: float) -> None:
        layers[name] += cost
        functions[where, name] = functions.get((where, name), 0.0) + cost

    costs = {tid: cost for (tid, _), cost in threads.items()}
    for (tid, frames), count in stacks.items():
        where = place(frames[-1]) if frames else "no Python frame"
        add(where, layer(frames), costs.get(tid, 0.0) * count / seen[tid])
    for (tid, name), cost in threads.items():
        if tid not in seen:
            add(f"thread {re.sub(r'[-_.]?[0-9]+$', '', name)}", NATIVE, cost)
    return Profile(requests_per_s, sum(stacks.values()), layers, functions)


def markdown(profile: Profile, picture: str) -> str:
    """The report for people."""
    total = profile.total_us or 1.0
    lines = [
        "# Where the microseconds of the ingress go",
        "",
        f"Made by `python -m benchmarks profile`: digits version 2, OIP JSON, {CONNECTIONS} "
        "connections, metrics and logs on.",
        f"{profile.requests_per_s:,.0f} requests/s, {profile.total_us:,.1f} µs of CPU per request "
        f"in the ingress process, {profile.samples:,} samples.",
        "",
        f"![CPU per request by layer]({picture})",
        "",
        "CPU of each thread is read from `/proc` in a run without the profiler; py-spy's samples",
        "share out the time of a thread over its stacks. The innermost frame with a layer decides.",
        "",
        "| layer | µs per request | share |",
        "|---|---:|---:|",
    ]
    for name, cost in profile.layers.items():
        lines.append(f"| {name} | {cost:,.1f} | {cost / total:.1%} |")
    lines += [f"| **all** | **{profile.total_us:,.1f}** | |", ""]
    lines += ["## Functions", "", "Time in the function itself and in C code that it calls.", ""]
    lines += ["| function | layer | µs per request | share |", "|---|---|---:|---:|"]
    ranked = sorted(profile.functions.items(), key=lambda item: -item[1])
    for (where, name), cost in ranked[:SHOWN]:
        lines.append(f"| `{where}` | {name} | {cost:,.2f} | {cost / total:.1%} |")
    return "\n".join(lines) + "\n"


def draw(profile: Profile, path: Path) -> None:
    """One bar per layer."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    axis: Any = figure.subplots()
    names = list(reversed(profile.layers))
    bars = axis.barh(names, [profile.layers[name] for name in names])
    axis.bar_label(bars, fmt="%.1f µs", padding=3)
    axis.margins(x=0.12)
    axis.set(
        title=f"Ingress: {profile.total_us:.0f} µs of CPU per request at {CONNECTIONS} connections",
        xlabel="µs per request",
    )
    figure.savefig(path, metadata={"Date": None})
