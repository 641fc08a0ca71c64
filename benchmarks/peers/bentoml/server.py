"""Starts `bentoml serve` with the service of this package.

Run it: python -m benchmarks.peers.bentoml.server --port 8100 --weights model.safetensors
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

SERVICE = "benchmarks.peers.bentoml.service:Digits"


def main() -> None:
    """Becomes `bentoml serve`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.bentoml.server")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rows", type=int, default=1, help="most rows of a batch")
    options = parser.parse_args()
    settings = {
        "BENTOML_HOME": tempfile.gettempdir() + "/bentoml",
        "BENTOML_DO_NOT_TRACK": "True",
        "DIGITS_WEIGHTS": str(options.weights),
        "DIGITS_WORKERS": str(options.workers),
        "DIGITS_ROWS": str(options.rows),
    }
    command = [sys.executable, "-m", "bentoml", "serve", SERVICE]
    command += ["--host", "127.0.0.1", "--port", str(options.port)]
    os.execve(sys.executable, command, {**os.environ, **settings})


if __name__ == "__main__":
    main()
