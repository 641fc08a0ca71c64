"""What the command line shows: colour and live progress on a terminal, plain lines in a pipe."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str = "") -> None:
    """One line for a person."""
    out.print(text, markup=False)


def complain(text: str) -> None:
    """An error, on standard error."""
    err.print(text, style="red" if err.is_terminal else None, markup=False)


def show_json(value: Any) -> None:
    """One document for a machine."""
    print(json.dumps(value, indent=2, default=str))


@contextmanager
def step(label: str) -> Iterator[None]:
    """Shows what is being done, and how long it took."""
    began = time.monotonic()
    dotted = f"{label} ".ljust(60, ".")
    if out.is_terminal:
        with out.status(label):
            yield
    else:
        yield
    say(f"{dotted} {time.monotonic() - began:.1f} s")
