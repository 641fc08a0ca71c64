"""The home folder of a cluster: one command changes it at a time, and an interrupt undoes it."""

from __future__ import annotations

import fcntl
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from serve_app.errors import DeploymentConflict


@contextmanager
def changing(home: Path) -> Iterator[None]:
    """For a command: holds the home's lock, and is interrupted by a request to terminate.

    Raises:
        DeploymentConflict: see `locked`.
    """
    with locked(home), interruptible():
        yield


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Holds the home's lock; it ends with the block, and with the process.

    Raises:
        DeploymentConflict: another command is at work on this home.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            text = f"another serve-app command is at work in {home}"
            raise DeploymentConflict(text) from error
        yield


@contextmanager
def interruptible() -> Iterator[None]:
    """Makes a KeyboardInterrupt of a request to terminate, so that what was begun is undone.

    Only the main thread of a process may ask for that.
    """
    former = {each: signal.signal(each, _interrupt) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, handler in former.items():
            signal.signal(each, handler)


_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
