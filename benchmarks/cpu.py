"""CPU time of a server's processes, from /proc.

CPU per request = CPU time (user + system) that all processes of the server used during the run,
divided by the requests that were answered.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """One process at one moment."""

    pid: int
    parent: int
    session: int
    started: int
    """In clock ticks after boot: with the pid it names a process for good."""
    cpu_s: float
    command: str


def processes() -> dict[int, Process]:
    """All processes of this machine that are alive, by pid."""
    found = {}
    for entry in os.scandir(PROC):
        if entry.name.isdigit():
            process = _read(int(entry.name))
            if process is not None:
                found[process.pid] = process
    return found


def family(roots: Collection[int], table: Mapping[int, Process]) -> list[Process]:
    """The roots, all their descendants, and whoever lives in a session that one of them leads.

    The session finds a process whose parent has died, which is then a child of init.
    """
    members = {pid for pid in roots if pid in table}
    while True:
        more = {
            process.pid
            for process in table.values()
            if process.pid not in members
            and (process.parent in members or process.session in members)
        }
        if not more:
            return [table[pid] for pid in sorted(members)]
        members |= more


_REPLICA = re.compile(r"ray::ServeReplica:([^:]+):(\w+)")
_ROLES = (
    (re.compile(r"ray::ProxyActor"), "proxy"),
    (re.compile(r"ray::ServeController"), "controller"),
    (re.compile(r"/raylet( |$)"), "raylet"),
    (re.compile(r"/gcs_server( |$)"), "gcs"),
    (re.compile(r"ray-dashboard|dashboard/|ray::DashboardAgent|ray::RuntimeEnvAgent"), "dashboard"),
    (re.compile(r"multiprocessing\.(forkserver|resource_tracker)"), "dashboard"),
    (re.compile(r"benchmarks\.servers\.bare_"), "server"),
    (re.compile(r"benchmarks\.servers\."), "driver"),
)


def role(command: str) -> str:
    """What a process does, by its command line (Ray's workers write theirs themselves)."""
    replica = _REPLICA.search(command)
    if replica is not None:
        application, deployment = replica.groups()
        known = {"Ingress": "ingress", "ModelRouter": "router"}
        if deployment == "ModelReplica":
            return f"replica {application}"
        return known.get(deployment, f"replica {deployment}")
    return next((name for pattern, name in _ROLES if pattern.search(command)), "other")


class CpuMeter:
    """Adds up the CPU time that a server uses between `start` and `stop`.

    A process that ends in between is not counted; servers under steady load end none.

    Args:
        roots: pids of the server's first processes; descendants are found by themselves.
    """

    def __init__(self, roots: Collection[int]) -> None:
        self._roots = tuple(roots)
        self._before: dict[tuple[int, int], float] = {}

    def start(self) -> None:
        """Remembers what each process has used so far."""
        self._before = {
            (process.pid, process.started): process.cpu_s
            for process in family(self._roots, processes())
        }

    def stop(self) -> dict[str, float]:
        """CPU seconds since `start` by role."""
        used: dict[str, float] = defaultdict(float)
        for process in family(self._roots, processes()):
            before = self._before.get((process.pid, process.started), 0.0)
            used[role(process.command)] += process.cpu_s - before
        return dict(used)


def find(roots: Collection[int], wanted: str) -> list[int]:
    """The pids of a server's processes with this role."""
    return [p.pid for p in family(roots, processes()) if role(p.command) == wanted]


def thread_seconds(pid: int) -> dict[tuple[int, str], float]:
    """CPU seconds of each thread of a process, by thread id and name."""
    found = {}
    for task in (PROC / str(pid) / "task").iterdir():
        try:
            stat = (task / "stat").read_text()
        except OSError:  # it ended while we looked
            continue
        name, fields = _fields(stat)
        found[int(task.name), name] = _cpu_s(fields)
    return found


def _read(pid: int) -> Process | None:
    folder = PROC / str(pid)
    try:
        stat = (folder / "stat").read_text()
        command = (folder / "cmdline").read_bytes()
    except OSError:  # it ended while we looked
        return None
    name, fields = _fields(stat)
    if fields[0] in "ZX":
        return None
    return Process(
        pid=pid,
        parent=int(fields[1]),
        session=int(fields[3]),
        started=int(fields[19]),
        cpu_s=_cpu_s(fields),
        command=command.replace(b"\0", b" ").decode(errors="replace").strip() or f"[{name}]",
    )


def _fields(stat: str) -> tuple[str, list[str]]:
    """Name and the fields after it; the name stands in brackets and may hold anything."""
    head, _, tail = stat.rpartition(")")
    return head.partition("(")[2], tail.split()


def _cpu_s(fields: list[str]) -> float:
    return (int(fields[11]) + int(fields[12])) * TICK_S
