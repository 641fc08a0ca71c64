"""What the command line shows: colour and live progress on a terminal, plain lines in a pipe."""

from __future__ import annotations

import getpass
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape

out = Console(highlight=False, soft_wrap=True)
WIDTH = 100
"""Columns that every listing fits."""
err = Console(stderr=True, highlight=False, soft_wrap=True)

_listener: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)


@contextmanager
def heard_by(listener: Callable[[str], None]) -> Iterator[None]:
    """Lets somebody else hear every line that is said, or complained, meanwhile."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def user() -> str:
    """Who sits here, for the record; in a container it may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def say(text: str = "") -> None:
    """One line for a person."""
    out.print(text, markup=False)
    _tell(text)


def complain(text: str) -> None:
    """An error, on standard error."""
    err.print(text, style="red" if err.is_terminal else None, markup=False)
    _tell(text)


def _tell(text: str) -> None:
    listener = _listener.get()
    if listener is not None:
        listener(text)


def show_json(value: Any) -> None:
    """One document for a machine."""
    print(json.dumps(value, indent=2, default=_plain))


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


@contextmanager
def waiting(label: str) -> Iterator[Callable[[str], None]]:
    """Shows on a terminal that something is going on; silent in a pipe.

    Yields:
        A function that shows another label.
    """
    if out.is_terminal:
        with out.status(label) as status:
            yield lambda text: status.update(escape(text))
    else:
        yield lambda text: None


def done(label: str, began: float) -> str:
    """What was done, and how long it took since `began` (monotonic seconds)."""
    return f"{f'{label} '.ljust(60, '.')} {time.monotonic() - began:.1f} s"


@contextmanager
def step(label: str) -> Iterator[None]:
    """Shows what is being done, and how long it took."""
    began = time.monotonic()
    with waiting(label):
        yield
    say(done(label, began))
