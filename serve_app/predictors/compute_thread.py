"""One thread that computes, so that the event loop stays free."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

Job = Callable[[], None]
Handler = Callable[[int], None]
"""Told the events (`select.EPOLLIN` and so on) of a descriptor."""


class ComputeThread:
    """Runs calls one after the other, in the order in which they came, in one thread.

    Not a ThreadPoolExecutor: its threads are joined when the interpreter exits, so a model that
    hangs would keep the process alive. This one is a daemon. It also costs less per call.

    Between two calls it looks after file descriptors (`watch`), so that work which arrives on a
    socket reaches the model without waking a second thread: a hand-over between threads costs more
    than a small model.
    """

    def __init__(self, name: str) -> None:
        self._jobs: deque[Job] = deque()
        self._busy_since: float | None = None
        self._ended = False
        self._poll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # Not when the thread ends: who still has this object may write to the descriptor.
        weakref.finalize(self, os.close, self._wake).atexit = False
        self._handlers: dict[int, Handler] = {self._wake: lambda _: self._woken()}
        self._poll.register(self._wake, select.EPOLLIN)
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `function` in the thread and waits for it.

        A caller that is cancelled stops waiting; a call that has begun is finished all the same,
        one that has not is skipped.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            if future.cancelled():
                return
            with contextlib.suppress(RuntimeError):  # the caller's loop is closed: nobody waits
                try:
                    outcome = function(*args, **kwargs)
                except BaseException as exc:
                    loop.call_soon_threadsafe(_reject, future, exc)
                else:
                    loop.call_soon_threadsafe(_resolve, future, outcome)

        self._put(job)
        return await future

    def run_blocking(
        self, timeout_s: float | None, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs `function` in the thread and blocks until it is done; TimeoutError after a while."""
        future: Future[T] = Future()

        def job() -> None:
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as exc:
                future.set_exception(exc)

        self._put(job)
        return future.result(timeout_s)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def busy_for_s(self) -> float:
        """How long the current call has been running; 0.0 when there is none."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def restart_clock(self) -> None:
        """Counts `busy_for_s` from now; for a call that works in steps, from the thread itself."""
        self._busy_since = time.monotonic()

    def stop(self, timeout_s: float) -> bool:
        """Ends the thread after the calls already queued; False if it is still busy by then."""
        self._put(self._end)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # From the thread itself

    def enqueue(self, job: Job) -> None:
        """Adds a call from a handler; it must not raise."""
        self._jobs.append(job)

    def watch(self, descriptor: int, handler: Handler) -> None:
        """Calls `handler` between two calls whenever the descriptor can be read."""
        self._handlers[descriptor] = handler
        self._poll.register(descriptor, select.EPOLLIN)

    def watch_writing(self, descriptor: int, *, wanted: bool) -> None:
        """Whether its handler is to be told when the descriptor can be written, too."""
        self._poll.modify(descriptor, select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def unwatch(self, descriptor: int) -> None:
        """Ends `watch`; call it before the descriptor is closed."""
        del self._handlers[descriptor]
        self._poll.unregister(descriptor)

    def _put(self, job: Job) -> None:
        self._jobs.append(job)
        os.eventfd_write(self._wake, 1)

    def _woken(self) -> None:
        os.eventfd_read(self._wake)

    def _end(self) -> None:
        self._ended = True

    def _work(self) -> None:
        jobs, poll, handlers = self._jobs, self._poll.poll, self._handlers
        while not self._ended:
            for descriptor, events in poll(0 if jobs else -1):
                handler = handlers.get(descriptor)
                if handler is not None:  # else an earlier handler of this round has ended it
                    handler(events)
                handler = None  # else a descriptor that is done with keeps its owner in memory
            if jobs:
                job = jobs.popleft()
                self._busy_since = time.monotonic()
                job()
                self._busy_since = None
                del job  # else the inputs of the last batch stay in memory until the next one


def _resolve(future: asyncio.Future[T], outcome: T) -> None:
    if not future.cancelled():
        future.set_result(outcome)


def _reject(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.cancelled():
        future.set_exception(error)
