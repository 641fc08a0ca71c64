"""One thread that computes, so that the event loop stays free."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class ComputeThread:
    """Runs calls one after the other, in the order in which they came, in one thread.

    Not a ThreadPoolExecutor: its threads are joined when the interpreter exits, so a model that
    hangs would keep the process alive. This one is a daemon. It also costs less per call.
    """

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._busy_since: float | None = None
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

        self._jobs.put(job)
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

        self._jobs.put(job)
        return future.result(timeout_s)

    def busy_for_s(self) -> float:
        """How long the current call has been running; 0.0 when there is none."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def restart_clock(self) -> None:
        """Counts `busy_for_s` from now; for a call that works in steps, from the thread itself."""
        self._busy_since = time.monotonic()

    def stop(self, timeout_s: float) -> bool:
        """Ends the thread after the calls already queued; False if it is still busy by then."""
        self._jobs.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
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
