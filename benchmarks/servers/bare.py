"""How the bare reference servers are run: one uvicorn process, as fast as its options make it."""

from __future__ import annotations

from typing import Any

import uvicorn


def serve(application: Any, port: int) -> None:
    """Serves an ASGI application on 127.0.0.1 until the process is told to stop."""
    uvicorn.run(
        application,
        host="127.0.0.1",
        port=port,
        interface="asgi3",
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )
