"""What every process of the cluster does first."""

from __future__ import annotations

import os
from pathlib import Path

from serve_app.config.cluster import LogConfig
from serve_app.log import configure_logging


def set_up(log: LogConfig, home: str, name: str) -> None:
    """Sends this process' logs to `<home>/logs/<name>-<pid>.log`.

    Not to standard error: Serve takes that over in a replica and passes each line through a logger
    of its own, in another format and at a price per line.
    """
    configure_logging(log, process=name, path=Path(home) / "logs" / f"{name}-{os.getpid()}.log")
