from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from serve_app.predictors.compute_thread import ComputeThread


@pytest.fixture
def thread() -> Iterator[ComputeThread]:
    thread = ComputeThread("compute-test")
    yield thread
    assert thread.stop(5.0)


class Gate:
    """A call that lasts until it is opened."""

    def __init__(self) -> None:
        self.begun, self.opened = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        assert self.opened.wait(10)


async def test_calls_run_in_turn_in_the_one_thread(thread: ComputeThread) -> None:
    order: list[int] = []
    names: set[str] = set()

    def note(number: int) -> int:
        order.append(number)
        names.add(threading.current_thread().name)
        return number

    assert await asyncio.gather(*[thread.run(note, n) for n in range(50)]) == list(range(50))
    assert order == list(range(50))
    assert names == {"compute-test"}


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_errors_come_back_and_the_thread_lives_on(
    thread: ComputeThread, error: type[BaseException]
) -> None:
    def fail() -> None:
        raise error("x")

    with pytest.raises(error):
        thread.run_blocking(1.0, fail)
    assert thread.run_blocking(1.0, lambda: 1) == 1


async def test_a_value_error_reaches_a_coroutine(thread: ComputeThread) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        await thread.run(int, "x")


async def test_a_call_that_was_cancelled_in_the_queue_is_skipped(thread: ComputeThread) -> None:
    gate = Gate()
    ran: list[int] = []
    first = asyncio.create_task(thread.run(gate))
    second = asyncio.create_task(thread.run(ran.append, 2))
    third = asyncio.create_task(thread.run(ran.append, 3))
    await asyncio.to_thread(gate.begun.wait, 5)
    first.cancel()
    second.cancel()
    await asyncio.sleep(0)
    gate.opened.set()
    await third
    assert ran == [3]


def test_a_loop_that_is_closed_hurts_nobody(thread: ComputeThread) -> None:
    gate = Gate()

    async def leave() -> None:
        task = asyncio.create_task(thread.run(gate))
        await asyncio.to_thread(gate.begun.wait, 5)
        task.cancel()

    asyncio.run(leave())
    gate.opened.set()
    assert thread.run_blocking(5.0, lambda: "alive") == "alive"


def test_blocking_has_an_end(thread: ComputeThread) -> None:
    gate = Gate()
    with pytest.raises(TimeoutError):
        thread.run_blocking(0.05, gate)
    assert 0 < thread.busy_for_s() < 5
    assert not thread.stop(0.05)
    gate.opened.set()


def test_the_clock_of_a_call(thread: ComputeThread) -> None:
    assert thread.busy_for_s() == 0.0

    def steps() -> tuple[float, float]:
        time.sleep(0.05)
        before = thread.busy_for_s()
        thread.restart_clock()
        return before, thread.busy_for_s()

    before, after = thread.run_blocking(5.0, steps)
    assert before >= 0.05 > after
    thread.run_blocking(5.0, lambda: None)
    deadline = time.monotonic() + 1
    while thread.busy_for_s() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert thread.busy_for_s() == 0.0


def test_inputs_of_the_last_call_are_not_kept(thread: ComputeThread) -> None:
    class Inputs:
        pass

    inputs = Inputs()
    gone = weakref.ref(inputs)
    thread.run_blocking(5.0, lambda held: None, inputs)
    del inputs
    thread.run_blocking(5.0, lambda: None)
    gc.collect()
    assert gone() is None


def test_what_can_be_read_is_told_between_two_calls(thread: ComputeThread) -> None:
    ours, theirs = socket.socketpair()
    order: list[object] = []
    gate = Gate()

    def read(events: int) -> None:
        order.append(ours.recv(100))
        thread.enqueue(lambda: order.append("job"))

    thread.watch(ours.fileno(), read)
    waiting = threading.Thread(target=thread.run_blocking, args=(5.0, gate))
    waiting.start()
    assert gate.begun.wait(5)
    theirs.send(b"a")
    time.sleep(0.02)
    assert order == []
    gate.opened.set()
    waiting.join()
    thread.run_blocking(5.0, lambda: order.append("last"))
    thread.run_blocking(5.0, lambda: thread.unwatch(ours.fileno()))
    assert order[0] == b"a"
    assert set(order) == {b"a", "job", "last"}
    theirs.send(b"b")
    thread.run_blocking(5.0, lambda: None)
    assert b"b" not in order
    ours.close()
    theirs.close()


def test_a_handler_that_another_one_ended_is_not_told(thread: ComputeThread) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    told: list[int] = []
    gate = Gate()

    def handler(own: int) -> None:
        told.append(own)
        for ours, _ in pairs:
            thread.unwatch(ours.fileno())

    for number, (ours, _) in enumerate(pairs):
        thread.watch(ours.fileno(), lambda _, own=number: handler(own))  # type: ignore[misc]
    waiting = threading.Thread(target=thread.run_blocking, args=(5.0, gate))
    waiting.start()
    assert gate.begun.wait(5)
    for _, theirs in pairs:
        theirs.send(b"x")
    gate.opened.set()
    waiting.join()
    thread.run_blocking(5.0, lambda: None)
    assert len(told) == 1
    for pair in pairs:
        for each in pair:
            each.close()


def test_a_handler_is_forgotten_with_its_descriptor(thread: ComputeThread) -> None:
    class Owner:
        def __init__(self) -> None:
            self.ours, self.theirs = socket.socketpair()
            self.told = threading.Event()

        def handle(self, events: int) -> None:
            thread.unwatch(self.ours.fileno())
            self.ours.close()
            self.theirs.close()
            self.told.set()

    owner = Owner()
    thread.watch(owner.ours.fileno(), owner.handle)
    owner.theirs.send(b"x")
    assert owner.told.wait(5)
    time.sleep(0.02)  # it waits for the next event again
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None


def test_a_descriptor_that_can_be_written(thread: ComputeThread) -> None:
    ours, theirs = socket.socketpair()
    told = threading.Event()

    def handler(events: int) -> None:
        thread.watch_writing(ours.fileno(), wanted=False)
        told.set()

    thread.watch(ours.fileno(), handler)
    time.sleep(0.02)
    assert not told.is_set()
    thread.watch_writing(ours.fileno(), wanted=True)
    assert told.wait(5)
    thread.run_blocking(5.0, lambda: thread.unwatch(ours.fileno()))
    ours.close()
    theirs.close()


def test_calls_that_are_queued_are_done_before_it_stops() -> None:
    thread = ComputeThread("compute-test")
    done: list[int] = []
    for number in range(20):
        thread._put(lambda number=number: done.append(number))  # type: ignore[misc]
    assert thread.stop(5.0)
    assert done == list(range(20))


def test_a_model_that_hangs_does_not_keep_the_process_alive() -> None:
    code = (
        "import time\n"
        "from serve_app.predictors.compute_thread import ComputeThread\n"
        "thread = ComputeThread('compute')\n"
        "try: thread.run_blocking(0.05, time.sleep, 600)\n"
        "except TimeoutError: print('left', flush=True)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert run.stdout == "left\n"


def test_no_descriptor_is_left_when_it_is_gone() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        assert ComputeThread("compute-test").stop(5.0)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before
