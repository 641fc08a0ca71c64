"""Natural batching: while all slots are busy, arrivals gather; the next free slot takes them.

There is one `VersionQueue` per model version in each ingress. A *slot* is one batch in flight. When
a slot is free, what has arrived in this turn of the event loop goes out at once; when none is,
requests wait and leave together, up to `max_rows`. So a quiet service has no added latency and a
busy one full batches, with no wait time to tune.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from time import monotonic

import numpy as np

from serve_app.domain.gateway import Gateway
from serve_app.domain.inference import BatchResult, Failure, InferenceBatch, VersionKey
from serve_app.domain.routing import BatchingPolicy
from serve_app.domain.tensor import Array
from serve_app.errors import (
    DeadlineExceeded,
    InvalidInput,
    ModelFailed,
    NotReady,
    Overloaded,
    ReplicaLost,
    ServeAppError,
)
from serve_app.telemetry.trace import RequestTrace

logger = logging.getLogger(__name__)

BatchObserver = Callable[[VersionKey, int, float], None]
"""Told once per computed batch: version, rows, compute seconds."""

_FAILURES: dict[str, type[ServeAppError]] = {
    error.code: error for error in (InvalidInput, ModelFailed, DeadlineExceeded, NotReady)
}


class Member:
    """One request inside the batcher."""

    __slots__ = (
        "arrived",
        "batch",
        "deadline",
        "future",
        "inputs",
        "retried",
        "rows",
        "signature",
        "size",
        "timer",
        "trace",
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
        self.batch: _Flight | None = None
        self.timer: asyncio.TimerHandle | None = None


class _Flight:
    """One batch that is out, and how many of its members still want the answer."""

    __slots__ = ("task", "wanted")

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.task: asyncio.Task[None] | None = None


class VersionQueue:
    """Gathers the requests for one version and sends them as batches.

    Belongs to one event loop. Bounded in rows and bytes; every member has a deadline.
    """

    def __init__(
        self,
        key: VersionKey,
        gateway: Gateway,
        policy: BatchingPolicy,
        *,
        slots: int,
        idempotent: bool = True,
        observe: BatchObserver | None = None,
    ) -> None:
        self._key = key
        self._gateway = gateway
        self._policy = policy
        self._slots = slots
        self._idempotent = idempotent
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Hashable, deque[Member]] = {}
        self._retries: deque[Member] = deque()
        self._flights: set[_Flight] = set()
        self._flush_handle: asyncio.Handle | None = None
        self.queued_rows = 0
        self.queued_bytes = 0

    @property
    def in_flight(self) -> int:
        """Batches that are out."""
        return len(self._flights)

    def resize(self, policy: BatchingPolicy, slots: int) -> None:
        """Follows a new route table."""
        self._policy, self._slots = policy, slots
        self._schedule()

    async def submit(
        self,
        inputs: Mapping[str, Array],
        *,
        rows: int,
        size: int,
        deadline: float,
        signature: Hashable,
        trace: RequestTrace,
    ) -> Mapping[str, Array]:
        """Adds one request and waits for its outputs.

        Args:
            inputs: arrays that share their first dimension.
            rows: that first dimension.
            size: payload bytes, for the queue's bound.
            deadline: `time.monotonic()` seconds.
            signature: only members with an equal signature share a batch.
            trace: receives queue and compute seconds and the batch's size.

        Raises:
            Overloaded: the queue is full.
            DeadlineExceeded: the deadline passed before an answer came.
            ServeAppError: what the batch, or this member of it, failed with.
        """
        policy = self._policy
        if (
            self.queued_rows + rows > policy.max_queue_rows and self.queued_rows
        ) or self.queued_bytes + size > policy.max_queue_bytes:
            raise Overloaded(f"the queue of {self._key} is full")
        member = Member(inputs, rows, size, deadline, signature, trace, self._loop.create_future())
        member.timer = self._loop.call_later(
            max(0.0, deadline - member.arrived), self._expire, member
        )
        self._enqueue(member)
        self._schedule()
        try:
            return await member.future
        except asyncio.CancelledError:
            self._abandon(member)
            raise
        finally:
            member.timer.cancel()

    def close(self, error: ServeAppError) -> None:
        """Fails everything that waits; batches in flight end by themselves."""
        for member in [*self._retries, *self._members()]:
            self._fail(member, error)
        self._waiting.clear()
        self._retries.clear()
        self.queued_rows = self.queued_bytes = 0

    def _members(self) -> Iterator[Member]:
        for queue in self._waiting.values():
            yield from queue

    def _enqueue(self, member: Member) -> None:
        queue = self._waiting.get(member.signature)
        if queue is None:
            queue = self._waiting[member.signature] = deque()
        queue.append(member)
        self.queued_rows += member.rows
        self.queued_bytes += member.size

    def _schedule(self) -> None:
        """Flushes at the end of this turn of the loop, so that its arrivals go together."""
        if self._flush_handle is None and len(self._flights) < self._slots:
            self._flush_handle = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_handle = None
        while len(self._flights) < self._slots:
            members = self._take()
            if not members:
                return
            flight = _Flight(len(members))
            for member in members:
                member.batch = flight
            self._flights.add(flight)
            flight.task = self._loop.create_task(self._fly(flight, members))

    def _take(self) -> list[Member]:
        """Removes the members of the next batch; an empty list means that nothing may go yet."""
        while self._retries:
            member = self._retries.popleft()
            if not member.future.done():
                return [member]
        while (queue := self._oldest()) is not None:
            if self._holds(queue):
                return []
            members = self._take_from(queue)
            if members:
                return members
        return []

    def _holds(self, queue: deque[Member]) -> bool:
        """Whether the policy wants to wait for a fuller batch; if so, comes back when it is due."""
        wait_s = self._policy.max_wait_ms / 1000.0
        if not wait_s or sum(member.rows for member in queue) >= self._policy.max_rows:
            return False
        due = queue[0].arrived + wait_s - monotonic()
        if due > 0:
            self._flush_handle = self._loop.call_later(due, self._flush)
        return due > 0

    def _take_from(self, queue: deque[Member]) -> list[Member]:
        """Up to `max_rows` rows of one signature; a larger single request goes alone."""
        members: list[Member] = []
        rows = 0
        signature = queue[0].signature
        while queue and (not members or rows + queue[0].rows <= self._policy.max_rows):
            member = queue.popleft()
            self.queued_rows -= member.rows
            self.queued_bytes -= member.size
            if not member.future.done():
                members.append(member)
                rows += member.rows
        if not queue:
            del self._waiting[signature]
        return members

    def _oldest(self) -> deque[Member] | None:
        """The signature whose first member has waited longest."""
        if len(self._waiting) < 2:
            return next(iter(self._waiting.values()), None)
        return min(self._waiting.values(), key=lambda queue: queue[0].arrived)

    async def _fly(self, flight: _Flight, members: list[Member]) -> None:
        departed = monotonic()
        try:
            batch = _assemble(members, departed)
            timeout_s = max(batch.budgets_s)
            result = await self._gateway.call(self._key, batch, timeout_s)
            self._deliver(members, result, departed)
        except ReplicaLost as error:
            self._retry_or_fail(members, error)
        except ServeAppError as error:
            for member in members:
                self._fail(member, error)
        except Exception:
            logger.exception("batch failed", extra={"action": "batch", **self._key._asdict()})
            for member in members:
                self._fail(member, ServeAppError())
        finally:
            self._flights.discard(flight)
            self._schedule()

    def _deliver(self, members: list[Member], result: BatchResult, departed: float) -> None:
        total = sum(member.rows for member in members)
        if self._observe is not None:
            self._observe(self._key, total, result.compute_s)
        start = 0
        for index, member in enumerate(members):
            trace = member.trace
            trace.queue_s = departed - member.arrived
            trace.compute_s = result.compute_s
            trace.batch_rows = total
            failure = result.failures.get(index) if result.failures else None
            if failure is not None:
                self._fail(member, _error(failure))
                continue
            stop = start + member.rows
            if not member.future.done():
                member.future.set_result(
                    result.outputs
                    if len(members) == 1
                    else {name: array[start:stop] for name, array in result.outputs.items()}
                )
            start = stop

    def _retry_or_fail(self, members: list[Member], error: ReplicaLost) -> None:
        """Retries each member once and alone, so that one input cannot kill a replica for all."""
        for member in members:
            if member.retried or not self._idempotent:
                self._fail(member, error)
            else:
                member.retried = True
                member.batch = None
                self._retries.append(member)

    def _expire(self, member: Member) -> None:
        if not member.future.done():
            member.future.set_exception(DeadlineExceeded("the deadline of the request passed"))
            self._abandon(member)

    def _abandon(self, member: Member) -> None:
        """Nobody waits for this member; a batch that nobody waits for is cancelled."""
        flight, member.batch = member.batch, None  # an expired member may be cancelled as well
        if flight is not None and flight in self._flights:
            flight.wanted -= 1
            if flight.wanted == 0 and flight.task is not None:
                flight.task.cancel()
                # A task that is cancelled before its first step never reaches its `finally`.
                self._flights.discard(flight)
                self._schedule()

    @staticmethod
    def _fail(member: Member, error: ServeAppError) -> None:
        """Gives each member an error of its own: one instance must not be raised in two tasks."""
        if not member.future.done():
            member.future.set_exception(type(error)(*error.args))


def _assemble(members: list[Member], now: float) -> InferenceBatch:
    first = members[0].inputs
    if len(members) == 1:
        inputs = first
    else:
        inputs = {
            name: np.concatenate([member.inputs[name] for member in members]) for name in first
        }
    return InferenceBatch(
        inputs,
        tuple([member.rows for member in members]),
        tuple([member.deadline - now for member in members]),
        tuple([member.trace.request_id for member in members]),
    )


def _error(failure: Failure) -> ServeAppError:
    return _FAILURES.get(failure.code, ModelFailed)(failure.detail)
