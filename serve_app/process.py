"""Which process is which: a process id alone is used again after its owner has died."""

from __future__ import annotations

import os
from pathlib import Path

_START_FIELD = 22
"""Of /proc/PID/stat: the start time in clock ticks since boot."""


def start_time(pid: int) -> str | None:
    """When a process started, as the kernel counts; None when it is dead or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the name in parentheses, which may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else fields[_START_FIELD - 3]


def own_name() -> str:
    """`PID-START` of this process: part of the name of a file that it owns."""
    return f"{os.getpid()}-{start_time(os.getpid())}"


def owner(name: str) -> int | None:
    """The process id of the living owner of a file called `PID-START...`; None: it is dead.

    Args:
        name: the file's name without what follows `PID-START`.
    """
    pid, _, start = name.partition("-")
    if not (pid.isascii() and pid.isdigit() and start):
        return None
    return int(pid) if start_time(int(pid)) == start else None
