"""A steady, open-loop load and its oracle: one right answer, or one allowed refusal, per id.

Requests leave on schedule, whether or not earlier ones were answered, so a stall is not hidden.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp


class Question(NamedTuple):
    """One request, and how its answer is known to be right."""

    tensor: dict[str, Any]
    is_right: Callable[[list[float]], bool]


def echo(number: int) -> Question:
    """Asks for a number of its own; only that one is right."""
    tensor = {"name": "x", "shape": [1, 1], "datatype": "INT64", "data": [number]}
    return Question(tensor, lambda data: data == [number])


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
    failed: list[tuple[float, str]] = field(default_factory=list)
    """Of these the failures of models: when (seconds since the epoch), and of which version."""
    versions: Counter[str] = field(default_factory=Counter)
    served: list[tuple[float, str]] = field(default_factory=list)
    """When each right answer was asked for, and the version that gave it."""
    latencies_s: list[float] = field(default_factory=list)


class Load:
    """Sends `rate` requests per second to a model, `echo` by default, until it is left."""

    _ids = itertools.count(1)

    def __init__(
        self,
        address: str,
        rate: float = 100.0,
        path: str = "/v2/models/echo/infer",
        ask: Callable[[int], Question] = echo,
    ):
        self.answers = Answers()
        self._ask = ask
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
        tensor, is_right = self._ask(number)
        began, at = time.monotonic(), time.time()
        try:
            async with self._session.post(self._url, json={"inputs": [tensor]}) as response:
                answer = await response.json(content_type=None)
                if response.status == 200:
                    got = answer["outputs"][0]["data"]
                    if is_right(got):
                        answers.right += 1
                        answers.versions[response.headers["x-model-version"]] += 1
                        answers.served.append((at, response.headers["x-model-version"]))
                        answers.latencies_s.append(time.monotonic() - began)
                    else:
                        answers.wrong.append(f"id {number} got {got}")
                elif response.status == 503 and "Retry-After" in response.headers:
                    answers.refused[f"{answer['code']}: {answer['detail']}"] += 1
                else:
                    answers.wrong.append(f"{response.status}: {answer}")
                    if answer.get("code") == "model_failed":
                        answers.failed.append((time.time(), response.headers["x-model-version"]))
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
            answers.broken += 1
        except TimeoutError:
            answers.wrong.append(f"id {number} hung")
