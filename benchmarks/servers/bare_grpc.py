"""One grpc.aio process that answers ModelInfer with the same bytes every time.

The least that a server on grpc.aio can do: it parses nothing, computes nothing and sends no
metadata. What our gRPC listener costs beyond this is ours.

Run it: python -m benchmarks.servers.bare_grpc --port 8100
"""

from __future__ import annotations

import argparse

import grpc
import numpy as np
import uvloop
from grpc import aio

from serve_app.grpc.generated.open_inference_pb2 import ModelInferResponse

SERVICE = "inference.GRPCInferenceService"
ANSWER = ModelInferResponse(
    model_name="digits",
    model_version="2",
    outputs=[
        ModelInferResponse.InferOutputTensor(name="logits", datatype="FP32", shape=(1, 10)),
    ],
    raw_output_contents=[np.zeros(10, np.float32).tobytes()],
).SerializeToString()


async def model_infer(_request: bytes, _context: object) -> bytes:
    """Answers one call; bytes in and bytes out, as gRPC has them."""
    return ANSWER


async def serve(port: int) -> None:
    """Serves until it is told to stop."""
    server = aio.server(options=[("grpc.so_reuseport", 1)])
    methods = {"ModelInfer": grpc.unary_unary_rpc_method_handler(model_infer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    """Serves until it is told to stop."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.servers.bare_grpc")
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
