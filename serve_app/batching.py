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
from collections.abc import Callable, Hashable, Mapping
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
    ReplicaLost,
    ServeAppError,
)
from serve_app.telemetry.trace import RequestTrace
from serve_app.waiting import ALONE, Member, WaitingRoom

logger = logging.getLogger(__name__)

BatchObserver = Callable[[VersionKey, int, float], None]
"""Told once per computed batch: version, rows, compute seconds."""

TOO_LATE = "the deadline of the request passed"

_SWEEP_S = 0.005
"""Deadlines are looked at no more often than this."""


class _Flight:
    """One batch that is out."""

    __slots__ = ("task", "wanted")

    def __init__(self, members: list[Member]) -> None:
        self.wanted = set(members)
        """The members that still want the answer."""
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
        self._slots = slots
        self._idempotent = idempotent
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self._room = WaitingRoom(policy)
        self._retries: deque[Member] = deque()
        self._flights: set[_Flight] = set()
        self._live: set[Member] = set()
        self._flush_handle: asyncio.Handle | None = None
        self._hold_timer: asyncio.TimerHandle | None = None
        self._sweep_timer: asyncio.TimerHandle | None = None

    @property
    def in_flight(self) -> int:
        """Batches that are out."""
        return len(self._flights)

    @property
    def queued_rows(self) -> int:
        """Rows that wait."""
        return self._room.rows

    @property
    def full(self) -> bool:
        """Whether not even one more row may wait."""
        return self._room.rows >= self._room.policy.max_queue_rows

    @property
    def queued_bytes(self) -> int:
        """Payload bytes that wait."""
        return self._room.bytes

    def follow(self, policy: BatchingPolicy, slots: int, *, idempotent: bool) -> None:
        """Takes over what a new route table says."""
        self._room.policy, self._slots, self._idempotent = policy, slots, idempotent
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
            signature: only members with an equal signature share a batch; `ALONE` shares with none.
            trace: receives queue and compute seconds and the batch's size.

        Raises:
            Overloaded: the queue is full.
            PayloadTooLarge: the request is larger than the whole queue may be.
            DeadlineExceeded: the deadline passed before an answer came.
            ServeAppError: what the batch, or this member of it, failed with.
        """
        member = Member(inputs, rows, size, deadline, signature, trace, self._loop.create_future())
        self._room.admit(member)
        self._live.add(member)
        self._watch(deadline)
        self._schedule()
        try:
            return await member.future
        except asyncio.CancelledError:
            self._abandon(member)
            raise
        finally:
            self._live.discard(member)

    def close(self, error: ServeAppError) -> None:
        """Fails everything that waits; batches in flight end by themselves."""
        for member in [*self._retries, *self._room.clear()]:
            _fail(member, error)
        self._retries.clear()

    def _schedule(self) -> None:
        """Flushes at the end of this turn of the loop, so that its arrivals go together."""
        if self._flush_handle is None and len(self._flights) < self._slots:
            self._flush_handle = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_handle = None
        if self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None
        while len(self._flights) < self._slots:
            members = self._next_members()
            if not members:
                return
            flight = _Flight(members)
            self._flights.add(flight)
            flight.task = self._loop.create_task(self._fly(flight, members))

    def _next_members(self) -> list[Member]:
        while self._retries:
            member = self._retries.popleft()
            if not member.future.done():
                return [member]
        now = monotonic()
        while True:
            departure = self._room.take(now)
            if departure.due is not None:
                self._hold_timer = self._loop.call_later(departure.due - now, self._flush)
            in_time = [member for member in departure.members if member.deadline > now]
            if len(in_time) < len(departure.members):
                for member in departure.members:
                    if member.deadline <= now:
                        _fail(member, DeadlineExceeded(TOO_LATE))
            if in_time or not departure.members:
                return in_time

    async def _fly(self, flight: _Flight, members: list[Member]) -> None:
        departed = monotonic()
        try:
            batch = _assemble(members, departed, self._room.policy.max_rows)
            result = await self._gateway.call(self._key, batch, max(batch.budgets_s))
            self._deliver(members, result, departed)
        except ReplicaLost as error:
            self._retry_or_fail(members, error)
        except ServeAppError as error:
            for member in members:
                _fail(member, error)
        except asyncio.CancelledError:
            # Ours, if nobody wants the answer; else the transport gave the call up.
            self._retry_or_fail(list(flight.wanted), ReplicaLost("the call was cancelled"))
            raise
        except Exception:
            for member in members:
                _fail(member, ServeAppError())
            logger.exception("batch failed", extra={"action": "batch", **self._key._asdict()})
        finally:
            self._flights.discard(flight)
            self._schedule()

    def _deliver(self, members: list[Member], result: BatchResult, departed: float) -> None:
        total = sum([member.rows for member in members])
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
                _fail(member, _error(failure))
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
                _fail(member, error)
            else:
                member.retried = True
                self._retries.append(member)

    def _watch(self, deadline: float) -> None:
        """One timer looks after all deadlines: one per request would cost more than its routing."""
        timer = self._sweep_timer
        now = self._loop.time()
        due = max(now + deadline - monotonic(), now + _SWEEP_S)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._sweep_timer = self._loop.call_at(due, self._sweep)

    def _sweep(self) -> None:
        self._sweep_timer = None
        now = monotonic()
        for member in [member for member in self._live if member.deadline <= now]:
            if not member.future.done():
                member.future.set_exception(DeadlineExceeded(TOO_LATE))
                self._abandon(member)
            self._live.discard(member)
        if self._live:
            self._watch(min([member.deadline for member in self._live]))

    def _abandon(self, member: Member) -> None:
        """Nobody waits for this member; a batch that nobody waits for is cancelled."""
        self._room.withdraw(member)
        for flight in self._flights:
            if member in flight.wanted:
                flight.wanted.discard(member)
                if not flight.wanted and flight.task is not None:
                    flight.task.cancel()
                    # A task that is cancelled before its first step never reaches its `finally`.
                    self._flights.discard(flight)
                    self._schedule()
                return


def _fail(member: Member, error: ServeAppError) -> None:
    """Gives each member an error of its own: one instance must not be raised in two tasks."""
    if not member.future.done():
        member.future.set_exception(type(error)(*error.args))


def _assemble(members: list[Member], now: float, max_rows: int) -> InferenceBatch:
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
        0 if members[0].signature is ALONE else max_rows,
    )


def _error(failure: Failure) -> ServeAppError:
    if failure.code == InvalidInput.code:
        return InvalidInput(failure.detail, failure.field)
    return _FAILURES.get(failure.code, ModelFailed)(failure.detail)


_FAILURES: dict[str, type[ServeAppError]] = {
    error.code: error for error in (ModelFailed, DeadlineExceeded, NotReady)
}
