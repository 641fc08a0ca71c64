"""Which layer of the ingress a stack belongs to, by the modules in it."""

from __future__ import annotations

import re
from collections.abc import Sequence

HTTP = "HTTP server and parser"
DECODE = "codec: decode"
ENCODE = "codec: encode"
DATA_PLANE = "data plane and batcher"
GATEWAY = "gateway: channel or handle, Ray"
TELEMETRY = "telemetry and logs"
LOOP = "event loop"
NATIVE = "native threads (Ray, gRPC)"
OTHER = "other"
LAYERS = (HTTP, DECODE, DATA_PLANE, GATEWAY, NATIVE, ENCODE, TELEMETRY, LOOP, OTHER)
"""In the order in which a request meets them."""

_RULES = tuple(
    (re.compile(pattern), layer)
    for pattern, layer in (
        (r"^serve_app/http/v\d/tensor_codec\.py:(\w+\.)*\w+_to_", ENCODE),
        (r"^serve_app/http/v\d/tensor_codec\.py:", DECODE),
        (r"^serve_app/http/v\d/\w*(answer|response)\w*\.py:", ENCODE),
        (r"^serve_app/http/v\d/\w*request\w*\.py:", DECODE),
        (r"^serve_app/(dataplane|ticket|inputs|arms|shadow|batching|waiting)\.py:", DATA_PLANE),
        (r"^serve_app/domain/(routing|assignment|caller|comparison)\.py:", DATA_PLANE),
        (r"^(deployments/gateway\.py:|serve_app/channel/)", GATEWAY),
        (r"^(ray|grpc|cloudpickle)/", GATEWAY),
        (r"^serve_app/(telemetry/|log\.py:)", TELEMETRY),
        (r"^(logging|pythonjsonlogger|prometheus_client)/", TELEMETRY),
        (r"^(serve_app/http|uvicorn|httptools|h11|starlette|fastapi)/", HTTP),
    )
)
_ENTRY = re.compile(
    r"^asyncio/(runners|base_events|events)\.py:"
    r"(\w+\.)*(run|run_forever|run_until_complete|_run_once|_run)$"
    r"|^ray/.*\b_run_\w*event_loop$"
)
"""Who turns the loop: what called these frames has no part in what the loop does."""
_LOOP = re.compile(r"^(asyncio/|uvloop/|threading\.py:|selectors\.py:|concurrent/)")
_FRAME = re.compile(r"^(?P<function>.+) \((?P<path>[^()]*?)(?::\d+)?\)$")


def layer(stack: Sequence[str]) -> str:
    """The layer of a stack, outermost frame first.

    The innermost frame that has a layer decides, so that the time of a library (asyncio, numpy)
    goes to the layer that called it. What nobody called but the loop itself is the event loop. A
    thread that C++ started has no frames as long as it does not call Python.
    """
    places = [place(frame) for frame in stack]
    entries = [index for index, found in enumerate(places) if _ENTRY.search(found)]
    places = places[entries[-1] + 1 :] if entries else places
    for found in reversed(places):
        for pattern, name in _RULES:
            if pattern.search(found):
                return name
    if not stack:
        return NATIVE
    return LOOP if all(_LOOP.search(found) for found in places) else OTHER


def place(frame: str) -> str:
    """``path:function`` of a frame as py-spy prints it: ``function (path:line)``."""
    match = _FRAME.match(frame)
    return f"{match['path']}:{match['function']}" if match else frame
