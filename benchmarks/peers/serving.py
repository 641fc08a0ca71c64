"""A peer, started for one block of measurements, and asked whether it computes the right thing."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import psutil
import torch

from benchmarks import digits
from benchmarks.errors import BenchmarkError
from benchmarks.peers.peer import Api, Peer, Row, Setup
from benchmarks.ports import free_ports
from benchmarks.running import (
    ROOT,
    STOP_TIMEOUT_S,
    Running,
    answers,
    end_family,
    environment,
    wait_until,
)
from benchmarks.servers.digits_mlp import load


@contextmanager
def serving(
    peer: Peer, setup: Setup, python: Path, weights: Path, probe: bytes
) -> Iterator[Running]:
    """Runs a peer on a free port in a folder of its own, and ends every process of it.

    Args:
        peer: what is run.
        setup: how.
        python: of its environment.
        weights: of the network that it serves.
        probe: a request body that it must answer before the measurement begins.
    """
    port = free_ports(1)[0]
    command = [str(python), "-m", peer.module, "--port", str(port), "--weights", str(weights)]
    url = f"http://127.0.0.1:{port}"
    # Not ours to tidy: what a server leaves behind when it is killed.
    with tempfile.TemporaryDirectory(prefix="bench-peer-", ignore_cleanup_errors=True) as folder:
        log = Path(folder, "log")
        with log.open("ab") as sink:
            child = subprocess.Popen(
                [*command, *setup.options],
                cwd=folder,  # some write files where they are started
                env=_environment(python, folder, setup),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        try:
            began = time.monotonic()
            with httpx.Client(trust_env=False, timeout=10.0) as client:
                wait_until(
                    lambda: answers(client, url + peer.api.path, probe), peer.name, child, log
                )
            yield Running(peer.name, url, child.pid, log, time.monotonic() - began)
        finally:
            end_family(child.pid)
            child.wait(STOP_TIMEOUT_S)
            _end_strays(folder)


def _end_strays(folder: str) -> None:
    """Ends what a server has left behind that has died before its children."""
    strays = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TMPDIR") == folder:
                process.kill()
                strays.append(process)
    psutil.wait_procs(strays, STOP_TIMEOUT_S)


def _environment(python: Path, folder: str, setup: Setup) -> dict[str, str]:
    """That of a shell in which the environment is active: some start programs by name."""
    inherited = environment()
    path = f"{python.parent}:{inherited.get('PATH', '')}"
    return {
        **inherited,
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "TMPDIR": folder,
        **setup.variables,
    }


def expected(weights: Path, rows: Sequence[Row]) -> digits.Array:
    """The logits that every server must answer."""
    with torch.inference_mode():
        found: digits.Array = load(weights)(torch.tensor(rows, dtype=torch.float32)).numpy()
    return found


def check(name: str, url: str, api: Api, rows: Sequence[Row], wanted: digits.Array) -> None:
    """Asks a server for the logits of these rows, one request each.

    Raises:
        BenchmarkError: it refuses, does not answer, or computes something else.
    """
    found = []
    with httpx.Client(trust_env=False, timeout=30.0) as client:
        for row in rows:
            try:
                answer = client.post(
                    url + api.path,
                    content=api.body(row),
                    headers={"content-type": "application/json"},
                )
            except httpx.HTTPError as exc:
                raise BenchmarkError(f"{name} does not answer: {exc!r}") from exc
            if answer.status_code != 200:
                raise BenchmarkError(f"{name} answers {answer.status_code}: {answer.text[:500]}")
            found.append(np.array(api.logits(answer.json()), np.float32).ravel())
    digits.check_same(name, np.stack(found), wanted)
