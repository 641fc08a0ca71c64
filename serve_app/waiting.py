"""Where requests for one version wait for a batch: bounded, in order of age, by signature."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from itertools import islice
from time import monotonic
from typing import NamedTuple

from serve_app.domain.batching_policy import BatchingPolicy
from serve_app.domain.tensor import Array
from serve_app.errors import Overloaded, PayloadTooLarge, ServeAppError
from serve_app.telemetry.trace import RequestTrace

ALONE: Hashable = None
"""The signature of requests that share a batch with nobody."""

Settle = Callable[[Mapping[str, Array] | None, ServeAppError | None], None]
"""Takes the outputs of a member or the error that it failed with: exactly one of them is given."""

_COMPACT_AT = 1000


class Flight:
    """One batch that is out."""

    __slots__ = ("ahead", "rows", "task", "wanted")

    def __init__(self, wanted: int, rows: int, ahead: int) -> None:
        self.wanted = wanted
        """How many members still want the answer."""
        self.rows = rows
        self.ahead = ahead
        """Batches that were out when it left."""
        self.task: asyncio.Task[None] | None = None


class Member:
    """One request inside the batcher.

    `settle` is called at most once, and never once the member is `done`: answered, failed or
    withdrawn. It runs in the event loop and must not wait.
    """

    __slots__ = (
        "arrived",
        "deadline",
        "done",
        "flight",
        "inputs",
        "retried",
        "rows",
        "settle",
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
        settle: Settle,
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        self.size = size
        self.deadline = deadline
        self.signature = signature
        self.trace = trace
        self.settle = settle
        self.arrived = monotonic()
        self.done = False
        self.flight: Flight | None = None
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
        self.members = 0
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
        self.members += 1
        self.rows += member.rows
        self.bytes += member.size

    def withdraw(self, member: Member) -> None:
        """Gives back the place of a member that nobody waits for any more."""
        if not member.waiting:
            return
        self._leave(member)
        member.inputs = {}
        self._gone += 1
        self._drop_gone(self._queues[member.signature], member.signature)
        if self._gone >= _COMPACT_AT and self._gone > self.rows:
            self._compact()

    @property
    def mixed(self) -> bool:
        """Whether members of several signatures wait."""
        return len(self._queues) > 1

    def nearest_deadline(self, rows: int) -> float:
        """The first deadline among those that would leave with a batch of so many rows."""
        queue = self._by_age()[0]
        return min([member.deadline for member in islice(queue, rows) if member.waiting])

    @property
    def alone(self) -> bool:
        """Whether requests wait that share a batch with nobody: there is nothing to pace."""
        return ALONE in self._queues

    def take(self, now: float, max_rows: int) -> Departure:
        """Removes the members of the next batch: the oldest signature that need not wait.

        Args:
            now: by `time.monotonic`.
            max_rows: that it may have, unless a single request has more.
        """
        due: float | None = None
        for queue in self._by_age():
            ready_at = self._ready_at(queue)
            if ready_at > now:
                due = ready_at if due is None else min(due, ready_at)
                continue
            members = self._take_from(queue, max_rows)
            if members:
                return Departure(members)
        return Departure([], due)

    def clear(self) -> list[Member]:
        """Empties the room; returns who was in it."""
        members = list(self)
        self._queues.clear()
        self.rows = self.bytes = self.members = self._gone = 0
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

    def _take_from(self, queue: deque[Member], max_rows: int) -> list[Member]:
        members: list[Member] = []
        signature = queue[0].signature
        limit = 1 if signature is ALONE else max_rows
        rows = 0
        while queue and (not members or rows + queue[0].rows <= limit):
            member = queue.popleft()
            if member.waiting:
                self._leave(member)
                members.append(member)
                rows += member.rows
            else:
                self._gone -= 1
        self._drop_gone(queue, signature)
        return members

    def _drop_gone(self, queue: deque[Member], signature: Hashable) -> None:
        """Keeps the head of a queue a member that waits: times are counted from it."""
        while queue and not queue[0].waiting:
            queue.popleft()
            self._gone -= 1
        if not queue:
            del self._queues[signature]

    def _leave(self, member: Member) -> None:
        member.waiting = False
        self.members -= 1
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


def settled_already(_outputs: Mapping[str, Array] | None, _error: ServeAppError | None) -> None:
    """Stands where the callback of a member stood that is done."""
