"""Where requests for one version wait for a batch: bounded, in order of age, by signature."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Iterator, Mapping
from time import monotonic
from typing import NamedTuple

from serve_app.domain.routing import BatchingPolicy
from serve_app.domain.tensor import Array
from serve_app.errors import Overloaded, PayloadTooLarge
from serve_app.telemetry.trace import RequestTrace

ALONE: Hashable = None
"""The signature of requests that share a batch with nobody."""

_COMPACT_AT = 1000


class Member:
    """One request inside the batcher."""

    __slots__ = (
        "arrived",
        "deadline",
        "future",
        "inputs",
        "retried",
        "rows",
        "signature",
        "size",
        "trace",
        "waiting",
    )

    def __init__(
        self,
        inputs: Mapping[str, Array],
        rows: int,
        size: int,
        deadline: float,
        signature: Hashable,
        trace: RequestTrace,
        future: asyncio.Future[Mapping[str, Array]],
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        self.size = size
        self.deadline = deadline
        self.signature = signature
        self.trace = trace
        self.future = future
        self.arrived = monotonic()
        self.retried = False
        self.waiting = False


class Departure(NamedTuple):
    """What may leave now: members of one batch, or the time at which it is worth asking again."""

    members: list[Member]
    due: float | None = None


class WaitingRoom:
    """Holds members until a slot is free; never more than the policy's rows and bytes."""

    def __init__(self, policy: BatchingPolicy) -> None:
        self.policy = policy
        self.rows = 0
        self.bytes = 0
        self._queues: dict[Hashable, deque[Member]] = {}
        self._gone = 0

    def __iter__(self) -> Iterator[Member]:
        for queue in self._queues.values():
            for member in queue:
                if member.waiting:
                    yield member

    def admit(self, member: Member) -> None:
        """Adds a member.

        Raises:
            PayloadTooLarge: it could never fit.
            Overloaded: it does not fit now.
        """
        policy = self.policy
        if member.size > policy.max_queue_bytes:
            raise PayloadTooLarge(
                f"{member.size} bytes of inputs are more than the {policy.max_queue_bytes} that "
                "may wait for this version",
                "inputs",
            )
        if (self.rows and self.rows + member.rows > policy.max_queue_rows) or (
            self.bytes + member.size > policy.max_queue_bytes
        ):
            raise Overloaded("the queue of this version is full")
        queue = self._queues.get(member.signature)
        if queue is None:
            queue = self._queues[member.signature] = deque()
        queue.append(member)
        member.waiting = True
        self.rows += member.rows
        self.bytes += member.size

    def withdraw(self, member: Member) -> None:
        """Gives back the place of a member that nobody waits for any more."""
        if not member.waiting:
            return
        self._leave(member)
        member.inputs = {}
        self._gone += 1
        if self._gone >= _COMPACT_AT and self._gone > self.rows:
            self._compact()

    def take(self, now: float) -> Departure:
        """Removes the members of the next batch: the oldest signature that need not wait."""
        due: float | None = None
        for queue in self._by_age():
            ready_at = self._ready_at(queue)
            if ready_at > now:
                due = ready_at if due is None else min(due, ready_at)
                continue
            members = self._take_from(queue)
            if members:
                return Departure(members)
        return Departure([], due)

    def clear(self) -> list[Member]:
        """Empties the room; returns who was in it."""
        members = list(self)
        self._queues.clear()
        self.rows = self.bytes = self._gone = 0
        for member in members:
            member.waiting = False
        return members

    def _by_age(self) -> list[deque[Member]]:
        if len(self._queues) < 2:
            return list(self._queues.values())
        return sorted(self._queues.values(), key=lambda queue: queue[0].arrived)

    def _ready_at(self, queue: deque[Member]) -> float:
        """When the policy lets this signature go: at once if it does not wait, or is full."""
        wait_s = self.policy.max_wait_ms / 1000.0
        if not wait_s or queue[0].signature is ALONE:
            return 0.0
        rows = 0
        for member in queue:
            rows += member.rows if member.waiting else 0
            if rows >= self.policy.max_rows:
                return 0.0
        return queue[0].arrived + wait_s

    def _take_from(self, queue: deque[Member]) -> list[Member]:
        """Up to `max_rows` rows; a larger single request goes alone."""
        members: list[Member] = []
        signature = queue[0].signature
        limit = 1 if signature is ALONE else self.policy.max_rows
        rows = 0
        while queue and (not members or rows + queue[0].rows <= limit):
            member = queue.popleft()
            if member.waiting:
                self._leave(member)
                members.append(member)
                rows += member.rows
            else:
                self._gone -= 1
        if not queue:
            del self._queues[signature]
        return members

    def _leave(self, member: Member) -> None:
        member.waiting = False
        self.rows -= member.rows
        self.bytes -= member.size

    def _compact(self) -> None:
        self._gone = 0
        for signature, queue in list(self._queues.items()):
            kept = deque(member for member in queue if member.waiting)
            if kept:
                self._queues[signature] = kept
            else:
                del self._queues[signature]
