"""Work that takes only the CPU that nobody else wants, such as loading a model beside busy ones.

A load computes for seconds. At the same priority as its neighbours each of their requests may wait
for a whole time slice of it, twice; Linux interrupts an idle-class thread (`sched(7)`, SCHED_IDLE)
at once instead. Coming back from there takes CAP_SYS_NICE or an RLIMIT_NICE of 20: a process that
has neither works at normal priority, because it would never get out again.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_THREADS = Path("/proc/self/task")
_NO_PRIORITY = os.sched_param(0)
"""The only one that these classes have."""


async def in_background(work: Callable[[], T], longest_s: float) -> T:
    """Runs `work` in a thread that gives way, and so do the threads that it starts.

    Args:
        work: blocks until it is done.
        longest_s: after so long it is as good as everybody else, so that a machine that is always
            busy cannot starve it.
    """

    def give_way() -> T:
        if _may_return():
            os.sched_setscheduler(0, os.SCHED_IDLE, _NO_PRIORITY)
        return work()

    patience = asyncio.get_running_loop().call_later(longest_s, _all_return)
    try:
        return await asyncio.to_thread(give_way)
    finally:
        patience.cancel()
        _all_return()


def _may_return() -> bool:
    """Whether this process may leave the idle class again: tried by a thread of its own."""
    allowed = threading.Event()

    def there_and_back() -> None:
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, _NO_PRIORITY)
            os.sched_setscheduler(0, os.SCHED_OTHER, _NO_PRIORITY)
            allowed.set()

    thread = threading.Thread(target=there_and_back)
    thread.start()
    thread.join()
    return allowed.is_set()


def _all_return() -> None:
    """Whoever gave way may have started threads that live on, such as a pool that computes."""
    for task in _THREADS.iterdir():
        # It has just ended; or whoever started this process has put all of it there, for good.
        with suppress(ProcessLookupError, PermissionError):
            if os.sched_getscheduler(int(task.name)) == os.SCHED_IDLE:
                os.sched_setscheduler(int(task.name), os.SCHED_OTHER, _NO_PRIORITY)
