"""A steady, open-loop load and its oracle: one right answer, or one allowed refusal, per id.

Requests leave on schedule, whether or not earlier ones were answered, so a stall is not hidden.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import aiohttp


@dataclass
class Answers:
    """What came back."""

    sent: int = 0
    right: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """Allowed refusals (503 with Retry-After) by error code and text."""
    broken: int = 0
    """Connections that were reset; allowed only where the fault kills their ingress."""
    wrong: list[str] = field(default_factory=list)
    """Everything that is never allowed."""
    versions: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)


class Load:
    """Sends `rate` requests per second to the echo model until it is left."""

    _ids = itertools.count(1)

    def __init__(self, address: str, rate: float = 100.0, path: str = "/v2/models/echo/infer"):
        self.answers = Answers()
        self._url = f"http://{address}{path}"
        self._rate = rate
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=64)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=25)
        )
        self._sender = asyncio.create_task(self._send())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._sender.cancel()
        await asyncio.gather(*self._tasks)
        await self._session.close()

    async def _send(self) -> None:
        start = time.monotonic()
        for n in itertools.count():
            await asyncio.sleep(max(0.0, start + n / self._rate - time.monotonic()))
            task = asyncio.create_task(self._one(next(self._ids)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _one(self, number: int) -> None:
        answers = self.answers
        answers.sent += 1
        body = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "INT64", "data": [number]}]}
        began = time.monotonic()
        try:
            async with self._session.post(self._url, json=body) as response:
                answer = await response.json(content_type=None)
                if response.status == 200:
                    got = answer["outputs"][0]["data"]
                    if got == [number]:
                        answers.right += 1
                        answers.versions[response.headers["x-model-version"]] += 1
                        answers.latencies_s.append(time.monotonic() - began)
                    else:
                        answers.wrong.append(f"id {number} got {got}")
                elif response.status == 503 and "Retry-After" in response.headers:
                    answers.refused[f"{answer['code']}: {answer['detail']}"] += 1
                else:
                    answers.wrong.append(f"{response.status}: {answer}")
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
            answers.broken += 1
        except TimeoutError:
            answers.wrong.append(f"id {number} hung")
