"""The BentoML service: ``{"rows": [[64 numbers]]}`` -> ``[[10 numbers]]``.

`bentoml serve` imports this module; `server.py` chooses by environment how it is set up.

Tuned:

- `workers`: one and two are tried out (docs.bentoml.com, build-with-bentoml/parallelize-requests).
- Adaptive batching is tried out against none (docs.bentoml.com, get-started/adaptive-batching).
- `predict` is a coroutine, so that BentoML calls it on the loop; a plain function goes through a
  thread, which costs more than this network (docs.bentoml.com, build-with-bentoml/services).
- Access log, metrics, and the tracing of each request (`sample_rate` 0) are off (docs.bentoml.com,
  reference/bentoml/configurations).
- uvloop and httptools: uvicorn takes them because they are installed.
"""
# mypy: disable-error-code="import-not-found, misc, untyped-decorator"
# No deferred annotations: BentoML reads those of `predict` when it builds the API.

import os
from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
import torch
from bentoml.validators import DType, Shape
from numpy.typing import NDArray

from benchmarks.servers.digits_mlp import load

ROWS = int(os.environ["DIGITS_ROWS"])
MAX_LATENCY_MS = 1000
"""Above this BentoML refuses; the window in which it gathers adapts itself below it."""

Images = Annotated[np.ndarray, DType("float32"), Shape((-1, 64))]
Logits = Annotated[np.ndarray, DType("float32"), Shape((-1, 10))]


@bentoml.service(
    workers=int(os.environ["DIGITS_WORKERS"]),
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"sample_rate": 0.0},
)
class Digits:
    """The model, as BentoML wants it."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.network = load(Path(os.environ["DIGITS_WEIGHTS"]))

    @bentoml.api(batchable=ROWS > 1, max_batch_size=max(ROWS, 2), max_latency_ms=MAX_LATENCY_MS)
    async def predict(self, rows: Images) -> Logits:
        """Computes the rows of one request, or of those that came together."""
        with torch.inference_mode():
            logits: NDArray[np.float32] = self.network(torch.from_numpy(rows)).numpy()
        return logits
