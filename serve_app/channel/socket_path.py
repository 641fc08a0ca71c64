"""Where replicas put their sockets: a folder of the user's own, names that nobody can guess."""

from __future__ import annotations

import logging
import os
import secrets
import stat
import tempfile
from pathlib import Path

from serve_app.errors import ClusterError
from serve_app.process import own_name, owner

logger = logging.getLogger(__name__)

SUFFIX = ".sock"
_LONGEST_PATH = 107
"""Bytes of a Unix socket's path (`sun_path` of 108, with a zero at its end)."""


def socket_folder() -> Path:
    """The folder of all sockets of this user, made if it is missing.

    Not below the home of the product: its path may be longer than a socket's path can be.

    Raises:
        ClusterError: the folder belongs to somebody else, or others may look into it.
    """
    folder = Path(tempfile.gettempdir()) / f"serve-app-{os.geteuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as exc:
        raise ClusterError(f"the folder for sockets cannot be made: {exc}") from exc
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ClusterError(f"{folder} must be a folder of mode 0700 that belongs to this user")
    return folder


def new_socket_path(folder: Path) -> Path:
    """A path for a socket of this process.

    Raises:
        ClusterError: it would be too long for a socket.
    """
    path = folder / f"{own_name()}-{secrets.token_hex(16)}{SUFFIX}"
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ClusterError(f"{path} is too long for a Unix socket: set TMPDIR to a shorter path")
    return path


def remove_stale_sockets(folder: Path) -> None:
    """Removes the sockets of processes that have died."""
    for path in folder.glob(f"*{SUFFIX}"):
        if owner(path.stem.rpartition("-")[0]) is None:
            logger.info("a stale socket is removed", extra={"action": "channel"})
            path.unlink(missing_ok=True)
