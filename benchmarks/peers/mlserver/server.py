"""Starts `mlserver start` with the digits network: OIP JSON, MLServer's own protocol.

Tuned:

- `parallel_workers`: none (the model in the process of the HTTP server), one and two are tried out
  (docs.seldon.ai/mlserver/user-guide/parallel-inference: the pool costs a hop between processes).
- Adaptive batching is tried out against none (.../user-guide/adaptive-batching). `max_batch_time`
  is 1 ms, because a longer one would be the latency of a client that is alone.
- `debug` off (with it go the access log and logs per request), no metrics endpoint and no gzip
  (.../api-reference/settings).
- uvloop and httptools: taken because they are installed.

Run it: python -m benchmarks.peers.mlserver.server --port 8100 --weights model.safetensors
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.ports import free_ports

BATCH_TIME_S = 0.001


def main() -> None:
    """Becomes `mlserver start`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.mlserver.server")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--rows", type=int, default=1, help="most rows of a batch")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mlserver-"))
    grpc = next(port for port in free_ports(2) if port != options.port)
    _write(
        folder / "settings.json",
        {
            "host": "127.0.0.1",
            "http_port": options.port,
            "grpc_port": grpc,
            "parallel_workers": options.workers,
            "debug": False,
            "metrics_endpoint": None,
            "gzip_enabled": False,
            "metrics_dir": str(folder / "metrics"),
            "environments_dir": str(folder / "environments"),
        },
    )
    _write(
        folder / "model-settings.json",
        {
            "name": "digits",
            "implementation": "benchmarks.peers.mlserver.runtime.Digits",
            "parameters": {"version": "2", "uri": str(options.weights)},
            "max_batch_size": options.rows if options.rows > 1 else 0,
            "max_batch_time": BATCH_TIME_S if options.rows > 1 else 0.0,
        },
    )
    program = str(Path(sys.executable).with_name("mlserver"))
    os.execv(program, [program, "start", str(folder)])


def _write(path: Path, settings: dict[str, Any]) -> None:
    path.write_text(json.dumps(settings))


if __name__ == "__main__":
    main()
