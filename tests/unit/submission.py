"""A request to a `VersionQueue` as something to await; cancelling it withdraws the request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from serve_app.batching import VersionQueue
from serve_app.domain.tensor import Array
from serve_app.errors import ServeAppError


async def outputs_of(queue: VersionQueue, inputs: Mapping[str, Array], **request: Any) -> Any:
    answer: asyncio.Future[Mapping[str, Array] | None] = asyncio.get_running_loop().create_future()

    def settle(outputs: Mapping[str, Array] | None, error: ServeAppError | None) -> None:
        assert (outputs is None) is not (error is None)
        if answer.cancelled():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(outputs)

    member = queue.submit(inputs, settle=settle, **request)
    try:
        return await answer
    finally:
        queue.withdraw(member)
