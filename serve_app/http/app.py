"""The ASGI application: the hot path at the front, FastAPI for everything else."""

from __future__ import annotations

import asyncio

from serve_app.config.ingress import RequestLimits
from serve_app.config.listener import HttpConfig
from serve_app.dataplane import DataPlane
from serve_app.domain.request_id import request_id
from serve_app.errors import ClientGone
from serve_app.http.asgi import AsgiApp, Receive, Scope, Send
from serve_app.http.errors import REQUEST_ID, as_serve_app_error, error_response
from serve_app.http.middleware import respond
from serve_app.http.rest import create_rest
from serve_app.http.v2.infer import InferEndpoint, infer_target
from serve_app.public_error import OK
from serve_app.telemetry.sink import Telemetry
from serve_app.telemetry.trace import RequestTrace


def create_app(
    dataplane: DataPlane, http: HttpConfig, limits: RequestLimits, telemetry: Telemetry
) -> AsgiApp:
    """Builds the application that a listener serves.

    Args:
        dataplane: computes inference requests.
        http: caps on bodies and JSON, and whether documentation is served.
        limits: caps on each inference request.
        telemetry: hears of every finished request.
    """
    infer = InferEndpoint(dataplane, http, limits)
    rest = create_rest(dataplane, http, telemetry, infer)
    return Front(infer, rest, telemetry)


class Front:
    """Answers infer requests itself and hands everything else on.

    A FastAPI route costs more than all the rest of an infer request, so that the two hot routes
    are taken out before its router.
    """

    def __init__(self, infer: InferEndpoint, rest: AsgiApp, telemetry: Telemetry) -> None:
        self._infer = infer
        self._rest = rest
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] == "http" and scope["method"] == "POST":
            target = infer_target(scope["path"])
            if target is not None and b"%" not in scope["raw_path"]:
                await self._hot(target, scope, receive, send)
                return
        await self._rest(scope, receive, send)

    async def _hot(
        self, target: tuple[str, str | None], scope: Scope, receive: Receive, send: Send
    ) -> None:
        headers = dict(scope["headers"])
        trace = RequestTrace("http", request_id(headers.get(REQUEST_ID)))
        status, code = 200, OK
        try:
            described, body = await self._infer.answer(*target, headers, receive, trace)
        except asyncio.CancelledError:
            self._telemetry.finish(trace, ClientGone.status, ClientGone.code)
            raise
        except Exception as exc:
            error = as_serve_app_error(exc, trace.request_id)
            code = error.code
            status, described, body = error_response(
                error, scope["path"], trace.request_id, trace.version
            )
        try:
            await respond(send, status, described, body)
        finally:
            self._telemetry.finish(trace, status, code)
