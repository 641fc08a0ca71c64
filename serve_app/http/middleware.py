"""What surrounds every route that FastAPI serves, as plain ASGI."""

from __future__ import annotations

import asyncio

from serve_app.config.listener import HttpConfig
from serve_app.domain.request_id import request_id
from serve_app.errors import ClientGone, NotReady, RouteNotFound
from serve_app.http.asgi import AsgiApp, Message, Receive, Scope, Send
from serve_app.http.body import read_body
from serve_app.http.errors import (
    REQUEST_ID,
    Headers,
    as_serve_app_error,
    error_response,
    is_openai,
)
from serve_app.http.head import trace_context
from serve_app.public_error import OK
from serve_app.telemetry.sink import Telemetry
from serve_app.telemetry.trace import RequestTrace


class RequestEnvelope:
    """Request id, body cap, error bodies and telemetry around the application inside.

    Endpoints find the `RequestTrace` in `request.state.trace`.
    """

    def __init__(self, app: AsgiApp, http: HttpConfig, telemetry: Telemetry) -> None:
        self._app = app
        self._max_body = http.max_body_bytes
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        headers = dict(scope["headers"])
        protocol = "openai" if is_openai(path) else "http"
        trace = RequestTrace(protocol, request_id(headers.get(REQUEST_ID)))
        trace.traceparent = trace_context(headers)
        scope.setdefault("state", {})["trace"] = trace
        answer = _Answer(send, trace.request_id)
        try:
            if b"%2f" in scope.get("raw_path", b"").lower():
                raise RouteNotFound("an encoded slash is not allowed in a path")
            body = await read_body(receive, headers, self._max_body)
            await self._app(scope, _Replay(body, receive), answer)
        except asyncio.CancelledError:
            self._telemetry.finish(trace, ClientGone.status, ClientGone.code)
            raise
        except Exception as exc:
            error = as_serve_app_error(exc, trace.request_id)
            self._telemetry.finish(trace, error.status, error.code)
            if not answer.status:
                await respond(send, *error_response(error, path, trace.request_id, trace.version))
        else:
            code = OK if answer.status < 400 else NotReady.code
            self._telemetry.finish(trace, answer.status, code)


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Sends a whole response."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _Answer:
    """Passes the response on, with the request id, and remembers its status."""

    def __init__(self, send: Send, identifier: str) -> None:
        self._send = send
        self._header = (REQUEST_ID, identifier.encode())
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), self._header]
        await self._send(message)


class _Replay:
    """Gives the body, which was read already, once; then what the connection says."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}
