"""Memory of a server's processes, from /proc."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection

from benchmarks import cpu

MIB = 1024 * 1024
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident(roots: Collection[int]) -> dict[str, float]:
    """Resident memory (RSS) of a server in MiB, by role of the process.

    Pages that processes share, such as the code of libraries, count in each of them.
    """
    found: dict[str, float] = defaultdict(float)
    for process in cpu.family(roots, cpu.processes()):
        try:
            pages = (cpu.PROC / str(process.pid) / "statm").read_text().split()[1]
        except OSError:  # it ended while we looked
            continue
        found[cpu.role(process.command)] += int(pages) * PAGE / MIB
    return dict(found)
