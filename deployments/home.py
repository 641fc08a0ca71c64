"""The home folder of a cluster: one command changes it at a time, and an interrupt undoes it."""

from __future__ import annotations

import fcntl
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from serve_app.errors import ClusterError


@contextmanager
def changing(home: Path) -> Iterator[None]:
    """Holds the home's lock; a request to terminate becomes a KeyboardInterrupt.

    Raises:
        ClusterError: another command is at work on this home.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ClusterError(f"another serve-app command is at work in {home}") from error
        former = {each: signal.signal(each, _interrupt) for each in _SIGNALS}
        try:
            yield
        finally:
            for each, handler in former.items():
                signal.signal(each, handler)


_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
