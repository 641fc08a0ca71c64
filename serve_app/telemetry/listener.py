"""The listener that Prometheus scrapes: GET /metrics and nothing else."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import uvicorn

from serve_app.config.listener import MetricsConfig
from serve_app.errors import ClusterError

logger = logging.getLogger(__name__)

Exposition = Callable[[str], Awaitable[tuple[bytes, str]]]
"""From the `Accept` header to the body and its content type."""

_Message = MutableMapping[str, Any]
_TEXT = "text/plain; charset=utf-8"


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals alone: they belong to the process, not to one of its listeners."""
        yield


class MetricsListener:
    """Serves the metrics on the running event loop; processes of a node share the port."""

    def __init__(self, metrics: MetricsConfig, exposition: Exposition) -> None:
        self._metrics = metrics
        self._exposition = exposition
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when the port answers.

        Raises:
            ClusterError: the port is taken by something else.
        """
        bound = _bind(self._metrics)
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            proxy_headers=False,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=64,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=2,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[bound]))
        while not self._server.started and not self._task.done():  # noqa: ASYNC110 - uvicorn has no event
            await asyncio.sleep(0.005)
        if self._task.done():
            await self._task

    async def stop(self) -> None:
        """Closes the port; a scrape in work may finish."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task
            self._server = self._task = None

    async def _app(
        self,
        scope: _Message,
        receive: Callable[[], Awaitable[_Message]],
        send: Callable[[_Message], Awaitable[None]],
    ) -> None:
        """The whole ASGI application."""
        if scope["method"] != "GET" or scope["path"] != "/metrics":
            await _answer(send, 404, b"Only GET /metrics is here.\n", _TEXT)
            return
        accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
        try:
            body, content_type = await self._exposition(accept)
        except OSError:
            logger.exception("cannot read the metrics", extra={"action": "metrics"})
            await _answer(send, 503, b"The metrics cannot be read; see the log.\n", _TEXT)
            return
        await _answer(send, 200, body, content_type)


async def _answer(
    send: Callable[[_Message], Awaitable[None]], status: int, body: bytes, content_type: str
) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _bind(metrics: MetricsConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in metrics.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((metrics.host, metrics.port))
    except OSError as exc:
        bound.close()
        raise ClusterError(
            f"metrics.port: cannot listen on {metrics.host}:{metrics.port}: {exc.strerror}"
        ) from exc
    bound.setblocking(False)
    return bound
