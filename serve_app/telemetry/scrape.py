"""What Prometheus scrapes: GET /metrics and nothing else, as an ASGI application."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

logger = logging.getLogger(__name__)

Exposition = Callable[[str], Awaitable[tuple[bytes, str]]]
"""From the `Accept` header to the body and its content type."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_TEXT = "text/plain; charset=utf-8"


class ScrapeApp:
    """Answers scrapes; whoever composes the process puts it behind a listener."""

    def __init__(self, exposition: Exposition) -> None:
        self._exposition = exposition

    async def __call__(self, scope: Message, _receive: Receive, send: Send) -> None:
        """Serves one request; its body, if there is one, is not read."""
        if scope["method"] != "GET" or scope["path"] != "/metrics":
            await _answer(send, 404, b"Only GET /metrics is here.\n", _TEXT)
            return
        accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
        try:
            body, content_type = await self._exposition(accept)
        except Exception:
            logger.exception("cannot read the metrics", extra={"action": "metrics"})
            await _answer(send, 503, b"The metrics cannot be read; see the log.\n", _TEXT)
            return
        await _answer(send, 200, body, content_type)


async def _answer(send: Send, status: int, body: bytes, content_type: str) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
