"""Where this installation keeps its state: artifacts, caches, the SQLite database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "SERVE_APP_HOME"


def home_dir() -> Path:
    """The absolute path of `$SERVE_APP_HOME`, by default `var` in the current folder.

    Nothing is created here.
    """
    return Path(os.environ.get(VARIABLE) or "var").expanduser().resolve()


@contextmanager
def home_in_environment() -> Iterator[None]:
    """Makes sure that `$SERVE_APP_HOME` is set, to an absolute path, for as long as this lasts."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(home_dir())
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
