"""Ray Serve as its documentation shows it: HTTP proxy -> FastAPI ingress -> `@serve.batch` model.

The proxy, the batch size and wait, the logs and all else have their defaults, with one exception in
Ray's favour: `max_ongoing_requests`. Its default of 5 is below the batch size, of which Ray Serve
itself warns at the start; at 64 connections its proxy then spends its time backing off, and answers
less than a tenth of the requests.

Run it: python -m benchmarks.servers.ray_serve_default --port 8100 --weights model.safetensors
"""

import argparse
import signal
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from fastapi import FastAPI
from numpy.typing import NDArray
from pydantic import BaseModel
from ray import serve
from ray.serve.handle import DeploymentHandle

from benchmarks.servers.digits_mlp import load

MAX_ONGOING_REQUESTS = 100
Row = NDArray[np.float32]


class InputTensor(BaseModel):
    """One tensor of the request."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class InferRequest(BaseModel):
    """The body of a request."""

    inputs: list[InputTensor]


app = FastAPI()


@serve.deployment(max_ongoing_requests=MAX_ONGOING_REQUESTS)
class DigitsModel:
    """Holds the network and computes batches."""

    def __init__(self, weights: str) -> None:
        self.network = load(Path(weights))

    @serve.batch
    async def predict(self, rows: list[Row]) -> list[Row]:
        """One call computes what single calls brought."""
        with torch.inference_mode():
            logits: Row = self.network(torch.from_numpy(np.stack(rows))).numpy()
        return list(logits)


@serve.deployment(max_ongoing_requests=MAX_ONGOING_REQUESTS)
@serve.ingress(app)
class DigitsApi:
    """The HTTP interface."""

    def __init__(self, model: DeploymentHandle[Any]) -> None:
        self.model = model

    @app.post("/v2/models/digits/versions/2/infer")
    async def infer(self, request: InferRequest) -> dict[str, Any]:
        """Computes the one row of a request."""
        row = np.array(request.inputs[0].data, dtype=np.float32)
        logits = await self.model.predict.remote(row)
        output = {
            "name": "logits",
            "datatype": "FP32",
            "shape": [1, len(logits)],
            "data": logits.tolist(),
        }
        return {"model_name": "digits", "model_version": "2", "outputs": [output]}


def main() -> None:
    """Serves until it is told to stop."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.servers.ray_serve_default")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    arguments = parser.parse_args()
    ray.init(address="local")
    serve.start(http_options={"port": arguments.port})
    # The decorator makes a class a Deployment, which type checkers do not see.
    model: Any = DigitsModel
    api: Any = DigitsApi
    serve.run(api.bind(model.bind(str(arguments.weights))))
    signal.pause()  # Ray ends the process on SIGTERM


if __name__ == "__main__":
    main()
