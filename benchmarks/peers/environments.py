"""A virtual environment per peer, made once and again when its requirements change."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.running import ROOT

REQUIREMENTS = ROOT / "benchmarks" / "peers"
ENVIRONMENTS = ROOT / "var" / "peers"


def prepare(folder: str, tell: Callable[[str], None]) -> Path:
    """Installs a peer if it is not installed; returns the Python that runs it.

    Args:
        folder: the peer's, in `benchmarks/peers`.
        tell: gets a line when something is installed, because that takes minutes.

    Raises:
        BenchmarkError: it cannot be installed; says what pip says.
    """
    wanted = (REQUIREMENTS / folder / "requirements.txt").read_text()
    home = ENVIRONMENTS / folder
    # Written last: an environment without it is half made.
    stamp = home / "installed.txt"
    python = home / ".venv" / "bin" / "python"
    if not (stamp.exists() and stamp.read_text() == wanted and python.exists()):
        tell(f"installing {folder} into {home}")
        stamp.unlink(missing_ok=True)
        shutil.rmtree(home / ".venv", ignore_errors=True)
        home.mkdir(parents=True, exist_ok=True)
        requirements = str(REQUIREMENTS / folder / "requirements.txt")
        _run([sys.executable, "-m", "venv", str(home / ".venv")])
        _run([str(python), *PIP, "install", "--quiet", "--requirement", requirements])
        stamp.write_text(wanted)
    return python


PIP = ("-m", "pip", "--disable-pip-version-check")


def version(python: Path, package: str) -> str:
    """The version of a package in a peer's environment."""
    code = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
    return _run([str(python), "-c", code, package]).strip()


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
    except OSError as exc:
        raise BenchmarkError(f"{command[0]}: {exc.strerror}") from exc
    if done.returncode != 0:
        said = (done.stderr or done.stdout).splitlines()
        errors = [line for line in said if line.startswith("ERROR")] or said[-5:]
        raise BenchmarkError(f"{' '.join(command)} failed:\n" + "\n".join(errors))
    return done.stdout
