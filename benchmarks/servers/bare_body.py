"""One uvicorn process that reads the body and answers: the least that an HTTP server can do.

Run it: python -m benchmarks.servers.bare_body --port 8100
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.servers.bare import serve

ANSWER = b'{"read":true}'
HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(ANSWER)).encode()),
]


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Reads to the end and keeps nothing: joining the parts would already be a copy."""
    while (await receive()).get("more_body", False):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})


def main() -> None:
    """Serves until it is told to stop."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.servers.bare_body")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    serve(application, arguments.port)


if __name__ == "__main__":
    main()
