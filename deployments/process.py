"""What every process of the cluster does first."""

from __future__ import annotations

import gc
import os
from pathlib import Path

from serve_app.config.cluster import LogConfig
from serve_app.log import configure_logging

YOUNG_OBJECTS = 10_000
"""Allocations between two collections of the youngest objects."""


def set_up(log: LogConfig, home: str, name: str) -> None:
    """Sends this process' logs to `<home>/logs/<name>-<pid>.log`.

    Not to standard error: Serve takes that over in a replica and passes each line through a logger
    of its own, in another format and at a price per line.
    """
    configure_logging(log, process=name, path=Path(home) / "logs" / f"{name}-{os.getpid()}.log")


def settle() -> None:
    """Takes everything that exists by now out of the garbage collector's sight.

    Modules, routes and weights live as long as the process: walking over them in each full
    collection takes tens of milliseconds, in which no request is answered. The young generation may
    grow, because requests leave no cycles behind.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)
