"""Work that gives way, and comes back."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator

import pytest

from deployments.background import in_background


def policy(thread: threading.Thread) -> int:
    assert thread.native_id is not None
    return os.sched_getscheduler(thread.native_id)


class Work:
    """Notes how it runs, and starts a thread that outlives it."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.helper = threading.Thread(target=self.go_on.wait, args=(20,))
        self.policies: list[int] = []

    def __call__(self) -> str:
        self.helper.start()
        self.policies += [os.sched_getscheduler(0), policy(self.helper)]
        return "done"


@pytest.fixture
def work() -> Iterator[Work]:
    found = Work()
    yield found
    found.go_on.set()
    found.helper.join()


@pytest.fixture
def permitted() -> None:
    """Skips where this process may not come back, as in a container without CAP_SYS_NICE."""
    outcome: list[bool] = []

    def probe() -> None:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        try:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        except PermissionError:
            outcome.append(False)

    thread = threading.Thread(target=probe)
    thread.start()
    thread.join()
    if outcome:
        pytest.skip("needs CAP_SYS_NICE")


async def test_it_gives_way_with_its_threads_and_all_of_them_come_back(
    permitted: None, work: Work
) -> None:
    assert await in_background(work, 60.0) == "done"
    assert work.policies == [os.SCHED_IDLE, os.SCHED_IDLE]
    assert policy(work.helper) == os.SCHED_OTHER
    assert await asyncio.to_thread(os.sched_getscheduler, 0) == os.SCHED_OTHER
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


async def test_whoever_waits_too_long_gives_way_no_more(permitted: None, work: Work) -> None:
    def patient() -> int:
        work()
        deadline = time.monotonic() + 10
        while os.sched_getscheduler(0) == os.SCHED_IDLE and time.monotonic() < deadline:
            time.sleep(0.01)
        return policy(work.helper)

    assert await in_background(patient, 0.2) == os.SCHED_OTHER
    assert work.policies == [os.SCHED_IDLE, os.SCHED_IDLE]


async def test_what_could_not_come_back_does_not_leave(
    monkeypatch: pytest.MonkeyPatch, work: Work
) -> None:
    real = os.sched_setscheduler

    def unprivileged(task: int, wanted: int, parameter: os.sched_param) -> None:
        if wanted == os.SCHED_OTHER:
            raise PermissionError(1, "Operation not permitted")
        real(task, wanted, parameter)

    monkeypatch.setattr(os, "sched_setscheduler", unprivileged)
    assert await in_background(work, 60.0) == "done"
    assert work.policies == [os.SCHED_OTHER, os.SCHED_OTHER]


async def test_what_it_raises_is_raised_and_it_comes_back(permitted: None, work: Work) -> None:
    def broken() -> None:
        work()
        raise ValueError("no such weights")

    with pytest.raises(ValueError, match="no such weights"):
        await in_background(broken, 60.0)
    assert work.policies[0] == os.SCHED_IDLE
    assert policy(work.helper) == os.SCHED_OTHER


async def test_a_process_that_is_idle_for_good_loads_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unprivileged(task: int, wanted: int, parameter: os.sched_param) -> None:
        if wanted == os.SCHED_OTHER:
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", unprivileged)
    monkeypatch.setattr(os, "sched_getscheduler", lambda _: os.SCHED_IDLE)
    assert await in_background(lambda: "done", 60.0) == "done"
