"""One uvicorn process with the model inside: no cluster, no framework, no checks, no batching.

What a cluster is held against: it has nothing that could be taken away, but it also has one
process, one model and no limits, metrics, logs or versions.

Run it: python -m benchmarks.servers.bare_uvicorn --port 8100 --weights model.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch

from benchmarks.servers.bare import serve
from benchmarks.servers.digits_mlp import DigitsMlp, load

PATH = "/v2/models/digits/versions/2/infer"
JSON = [(b"content-type", b"application/json")]


class Server:
    """The whole server: an ASGI 3 application."""

    def __init__(self, network: DigitsMlp) -> None:
        self._network = network

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers one request."""
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        status, answer = (200, self._infer(body)) if scope["path"] == PATH else (404, b"{}")
        length = (b"content-length", str(len(answer)).encode())
        await send({"type": "http.response.start", "status": status, "headers": [*JSON, length]})
        await send({"type": "http.response.body", "body": answer})

    def _infer(self, body: bytes) -> bytes:
        tensor = orjson.loads(body)["inputs"][0]
        rows = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
        with torch.inference_mode():
            logits = self._network(torch.from_numpy(rows)).numpy()
        output = {
            "name": "logits",
            "datatype": "FP32",
            "shape": logits.shape,
            "data": logits.ravel(),
        }
        answer = {"model_name": "digits", "model_version": "2", "outputs": [output]}
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def main() -> None:
    """Serves until it is told to stop."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.servers.bare_uvicorn")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    serve(Server(load(arguments.weights)), arguments.port)


if __name__ == "__main__":
    main()
