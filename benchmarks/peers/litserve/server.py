"""LitServe: ``{"input": [64 numbers]}`` -> ``{"output": [10 numbers]}``.

Tuned:

- `fast_queue` (ZeroMQ between its processes): its documentation recommends that above 100
  requests/s (lightning.ai/docs/litserve/api-reference/litserver).
- `log_level="warning"`: "good for production" there; and uvicorn's access log off.
- uvloop and httptools: uvicorn takes them because they are installed.
- `workers_per_device`, `num_api_servers` and batches (lightning.ai/docs/litserve/features/batching)
  are tried out. `batch_timeout` is 1 ms, because a longer one would be the latency of a client that
  is alone.

Run it: python -m benchmarks.peers.litserve.server --port 8100 --weights model.safetensors
"""
# mypy: disable-error-code="import-not-found, misc, no-untyped-def"

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from typing import Any

import litserve
import numpy as np
import torch

from benchmarks.servers.digits_mlp import load

BATCH_TIMEOUT_S = 0.001


class Digits(litserve.LitAPI):
    """The model, as LitServe wants it."""

    def __init__(self, weights: Path, rows: int) -> None:
        super().__init__(max_batch_size=rows, batch_timeout=BATCH_TIMEOUT_S if rows > 1 else 0.0)
        self.weights, self.batched = weights, rows > 1

    def setup(self, device: str) -> None:
        """Loads the network, once per worker."""
        torch.set_num_threads(1)
        self.network = load(self.weights)

    # Without an annotation LitServe hands over the decoded JSON; with one FastAPI validates it.
    def decode_request(self, request) -> Any:
        """One row out of one request."""
        return np.array(request["input"], np.float32)

    def batch(self, inputs: list[Any]) -> Any:
        """One array of the rows that came together."""
        return np.stack(inputs)

    def predict(self, x: Any) -> Any:
        """Computes one row, or a batch of them."""
        with torch.inference_mode():
            return self.network(torch.from_numpy(x)).numpy()

    def unbatch(self, output: Any) -> Any:
        """One answer per row."""
        return list(output)

    def encode_response(self, output: Any) -> dict[str, Any]:
        """The answer to one request."""
        return {"output": output.tolist()}


def main() -> None:
    """Serves until it is told to stop."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.litserve.server")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--api-servers", type=int, default=1)
    parser.add_argument("--rows", type=int, default=1, help="most rows of a batch")
    options = parser.parse_args()
    server = litserve.LitServer(
        Digits(options.weights, options.rows),
        accelerator="cpu",
        workers_per_device=options.workers,
        fast_queue=True,
    )
    # It stops its processes on Ctrl-C; SIGTERM would leave them behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server.run(
        host="127.0.0.1",
        port=options.port,
        num_api_servers=options.api_servers,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )


if __name__ == "__main__":
    main()
