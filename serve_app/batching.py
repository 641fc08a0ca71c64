"""Natural batching: while all slots are busy, arrivals gather; the next free slot takes them.

There is one `VersionQueue` per model version in each ingress. A *slot* is one batch in flight. When
a slot is free, what has arrived in this turn of the event loop goes out at once; when none is,
requests wait and leave together. So a quiet service has no added latency and a busy one full
batches. How many slots are useful, how large a batch may be and whether a moment's wait pays is
learnt from every batch (`serve_app.pacing`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from time import monotonic

from serve_app.assembly import assemble, deal_out, late
from serve_app.context import current_request
from serve_app.deadlines import DeadlineWatch
from serve_app.domain.batching_policy import BatchingPolicy
from serve_app.domain.gateway import Gateway
from serve_app.domain.inference import BatchResult, VersionKey
from serve_app.domain.tensor import Array
from serve_app.errors import DeadlineExceeded, ReplicaLost, ServeAppError
from serve_app.pacing import Pace
from serve_app.telemetry.trace import RequestTrace
from serve_app.waiting import Flight, Member, Settle, WaitingRoom, settled_already
from serve_app.waking import Waker

logger = logging.getLogger(__name__)

BatchObserver = Callable[[VersionKey, int, BatchResult], None]
"""Told once per computed batch: version, rows, and what came back."""

TOO_LATE = "the deadline of the request passed"


class VersionQueue:
    """Gathers the requests for one version and sends them as batches.

    Belongs to one event loop. Bounded in rows and bytes; every member has a deadline. While the
    version sleeps, members wait until it has a replica.
    """

    def __init__(
        self,
        key: VersionKey,
        gateway: Gateway,
        policy: BatchingPolicy,
        *,
        slots: int,
        most_slots: int = 0,
        replicas: int = 1,
        idempotent: bool = True,
        asleep: bool = False,
        observe: BatchObserver | None = None,
    ) -> None:
        self._key = key
        self._gateway = gateway
        self._slots = slots
        self._most_slots = max(slots, most_slots)
        self._pace = Pace(policy.max_rows, slots, replicas, most_slots)
        self._rows_out = 0
        self._idempotent = idempotent
        self._observe = observe
        self.waker = Waker(key, gateway, asleep, self._woken)
        self._loop = asyncio.get_running_loop()
        self._room = WaitingRoom(policy)
        self._retries: deque[Member] = deque()
        self._flights: set[Flight] = set()
        self._deadlines = DeadlineWatch(self._expire)
        self._flush_handle: asyncio.Handle | None = None
        self._hold_timer: asyncio.TimerHandle | None = None

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

    def follow(
        self,
        policy: BatchingPolicy,
        slots: int,
        *,
        most_slots: int = 0,
        replicas: int = 1,
        idempotent: bool = True,
        asleep: bool = False,
    ) -> None:
        """Takes over what a new route table says.

        So many batches may be in flight as there are `slots`; full ones, as `most_slots` if those
        are more.
        """
        self._room.policy, self._slots, self._idempotent = policy, slots, idempotent
        self._most_slots = max(slots, most_slots)
        self._pace.follow(policy.max_rows, slots, replicas, most_slots)
        self.waker.follow(asleep)
        self._schedule()

    def submit(
        self,
        inputs: Mapping[str, Array],
        *,
        rows: int,
        size: int,
        deadline: float,
        signature: Hashable,
        trace: RequestTrace,
        settle: Settle,
    ) -> Member:
        """Adds one request; `settle` hears how it ends, later and from the event loop.

        It is told of DeadlineExceeded if the deadline passes before an answer comes, and else of
        what the batch, or this member of it, failed with.

        Args:
            inputs: arrays that share their first dimension.
            rows: that first dimension.
            size: payload bytes, for the queue's bound.
            deadline: `time.monotonic()` seconds.
            signature: only members with an equal signature share a batch; `ALONE` shares with none.
            trace: receives queue and compute seconds and the batch's size.
            settle: not called after `withdraw`.

        Returns:
            What `withdraw` takes.

        Raises:
            Overloaded: the queue is full.
            PayloadTooLarge: the request is larger than the whole queue may be.
        """
        member = Member(inputs, rows, size, deadline, signature, trace, settle)
        self._room.admit(member)
        self._deadlines.add(member)
        self._schedule()
        return member

    def withdraw(self, member: Member) -> None:
        """Nobody waits for this member any more; a batch that nobody waits for is cancelled."""
        if member.done:
            return
        member.done = True
        member.settle = settled_already
        self._deadlines.discard(member)
        self._leave(member)

    def _leave(self, member: Member) -> None:
        """Takes a member out of the room, or out of its batch."""
        self._room.withdraw(member)
        if self.waker.asleep:
            self._schedule()
        flight = member.flight
        if flight is not None:
            flight.wanted -= 1
            if not flight.wanted and flight.task is not None:
                flight.task.cancel()
                # A task that is cancelled before its first step never reaches its `finally`.
                self._land(flight)
                self._schedule()

    def _land(self, flight: Flight) -> None:
        """A batch is out no more."""
        if flight in self._flights:
            self._flights.discard(flight)
            self._rows_out -= flight.rows

    def _expire(self, member: Member) -> None:
        if member.done:
            return
        if member.flight is not None:
            # Leaving may cancel the batch, which then can say nothing itself.
            self._pace.troubled(member.flight.rows)
        self._settle(member, None, DeadlineExceeded(TOO_LATE))
        self._leave(member)

    def close(self, error: ServeAppError) -> None:
        """Fails everything that waits; batches in flight end by themselves."""
        self.waker.stop()
        waiting = [*self._retries, *self._room.clear()]
        self._retries.clear()
        for member in waiting:
            self._fail(member, error)

    def _settle(
        self, member: Member, outputs: Mapping[str, Array] | None, error: ServeAppError | None
    ) -> None:
        """Ends one member; what its callback raises must not reach the other members."""
        if member.done:
            return
        member.done = True
        self._deadlines.discard(member)
        # A callback leads back to whoever holds the member: without it there is no such cycle, and
        # a request's tensors go with the request instead of waiting for the garbage collector.
        settle, member.settle = member.settle, settled_already
        try:
            settle(outputs, error)
        except Exception:
            logger.exception(
                "a request could not take its result",
                extra={"action": "settle", "request_id": member.trace.request_id},
            )

    def _fail(self, member: Member, error: ServeAppError) -> None:
        """Gives each member an error of its own: one must not get tracebacks from two requests."""
        if not member.done:
            self._settle(member, None, type(error)(*error.args))

    def _woken(self, error: ServeAppError | None) -> None:
        """A replica can be called, or there will be none."""
        if error is not None:
            self.close(error)
        self._schedule()

    def _schedule(self) -> None:
        """Flushes at the end of this turn of the loop, so that its arrivals go together."""
        if self.waker.asleep:
            retries = any(not member.done for member in self._retries)
            self.waker.attend(waiting=retries or self._room.members > 0)
        elif self._flush_handle is None and len(self._flights) < self._useful_slots():
            self._flush_handle = self._loop.call_soon(self._flush)

    def _useful_slots(self) -> int:
        """Slots that are worth using now; a retry may have any."""
        policy = self._room.policy
        if self._retries or not policy.adaptive or self._room.alone:
            return self._slots if self._room.rows < policy.max_rows else self._most_slots
        pace = self._pace
        return pace.slots if self._room.rows < pace.rows else pace.slots_when_full

    def _flush(self) -> None:
        self._flush_handle = None
        if self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None
        if self.waker.asleep:
            self._schedule()
        while len(self._flights) < self._useful_slots() and not self.waker.asleep:
            members = self._next_members()
            if not members:
                return
            rows = sum([member.rows for member in members])
            flight = Flight(len(members), rows, len(self._flights))
            for member in members:
                member.flight = flight
            self._flights.add(flight)
            self._rows_out += rows
            flight.task = self._loop.create_task(self._fly(flight, members))

    def _next_members(self) -> list[Member]:
        while self._retries:
            member = self._retries.popleft()
            if not member.done:
                return [member]
        now = monotonic()
        rows = self._rows_to_send(now)
        while rows:
            departure = self._room.take(now, rows)
            if departure.due is not None:
                self._hold_timer = self._loop.call_later(departure.due - now, self._flush)
            in_time = [member for member in departure.members if member.deadline > now]
            if len(in_time) < len(departure.members):
                for member in departure.members:
                    if member.deadline <= now:
                        self._fail(member, DeadlineExceeded(TOO_LATE))
            if in_time or not departure.members:
                return in_time
        return []

    def _rows_to_send(self, now: float) -> int:
        """How many rows the next batch may have; 0: none is to leave now."""
        room, policy = self._room, self._room.policy
        if not policy.adaptive or not room.members or room.alone:
            return policy.max_rows
        plan = self._pace.decide(
            now,
            waiting=room.members,
            rows=room.rows,
            budget_s=room.nearest_deadline(self._pace.rows) - now,
            in_flight=len(self._flights),
            rows_out=self._rows_out,
            # Counts of several signatures together say nothing about whom a hold would gather.
            may_hold=not (policy.max_wait_ms or room.mixed),
        )
        if len(self._flights) >= plan.slots:
            return 0
        if plan.wait_s:
            self._hold_timer = self._loop.call_later(plan.wait_s, self._flush)
            return 0
        return plan.rows

    async def _fly(self, flight: Flight, members: list[Member]) -> None:
        departed = monotonic()
        current_request.set(members[0].trace)
        try:
            batch = assemble(members, departed, self._room)
            result = await self._gateway.call(self._key, batch, max(batch.budgets_s))
            landed = monotonic()
            self._land(flight)
            if self._observe is not None:
                self._observe(self._key, flight.rows, result)
            deal_out(members, result, departed, flight.rows, self._settle)
            self._learn(flight, len(members), result, landed - departed)
        except ReplicaLost as error:
            self._retry_or_fail(members, error)
        except ServeAppError as error:
            if isinstance(error, DeadlineExceeded):
                self._pace.troubled(flight.rows)
            for member in members:
                self._fail(member, error)
        except asyncio.CancelledError:
            # Ours, if nobody wants the answer; else the transport gave the call up.
            self._retry_or_fail(members, ReplicaLost("the call was cancelled"))
            raise
        except Exception:
            for member in members:
                self._fail(member, ServeAppError())
            logger.exception("batch failed", extra={"action": "batch", **self._key._asdict()})
        finally:
            self._land(flight)
            self._schedule()

    def _learn(
        self, flight: Flight, members: int, result: BatchResult, round_trip_s: float
    ) -> None:
        if late(result):
            self._pace.troubled(flight.rows)
            return
        self._pace.finished(
            requests=members,
            rows=flight.rows,
            compute_s=result.compute_s,
            round_trip_s=round_trip_s,
            ahead=flight.ahead,
            waiting=self._room.members,
        )

    def _retry_or_fail(self, members: list[Member], error: ReplicaLost) -> None:
        """Retries each member once and alone, so that one input cannot kill a replica for all."""
        for member in members:
            if member.done:
                continue
            if member.retried or not self._idempotent:
                self._fail(member, error)
            else:
                member.retried = True
                member.flight = None
                self._retries.append(member)
