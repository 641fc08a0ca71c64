"""What every protocol calls: check against the signature, choose the version, batch, answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from serve_app.arms import ArmStatistics
from serve_app.batching import BatchObserver, VersionQueue
from serve_app.config.ingress import RequestLimits
from serve_app.context import current_request
from serve_app.domain.gateway import Gateway
from serve_app.domain.inference import InferenceRequest, InferenceResult, Layout, VersionKey
from serve_app.domain.routing import (
    EMPTY_TABLE,
    ModelRoute,
    RouteTable,
    VersionRoute,
    choose_version,
)
from serve_app.errors import Draining, NotReady, Overloaded, ServeAppError
from serve_app.inputs import lay_out
from serve_app.shadow import Shadows
from serve_app.telemetry.trace import RequestTrace
from serve_app.ticket import Settled, Ticket


class DataPlane:
    """The inference path of one ingress, from decoded inputs to outputs.

    Belongs to one event loop. Needs no database, no router and no Serve controller to answer: it
    works from the last route table that it was given.
    """

    def __init__(
        self, gateway: Gateway, limits: RequestLimits, observe: BatchObserver | None = None
    ) -> None:
        self._gateway = gateway
        self._limits = limits
        self._observe = observe
        self._queues: dict[VersionKey, VersionQueue] = {}
        self.arms = ArmStatistics()
        self.shadows = Shadows(self, self.arms)
        self.table: RouteTable = EMPTY_TABLE
        self.draining = False
        self.in_flight = 0

    @property
    def ready(self) -> bool:
        """Whether this ingress can take requests: it has a table and is not shutting down."""
        return self.table.revision > 0 and not self.draining

    @property
    def queues(self) -> Mapping[VersionKey, VersionQueue]:
        """The live queues, for gauges."""
        return self._queues

    def update(self, table: RouteTable) -> None:
        """Switches to a newer table in one step; an older one is ignored."""
        if table.revision <= self.table.revision:
            return
        self.table = table
        for key, queue in list(self._queues.items()):
            model = table.models.get(key.model)
            route = None if model is None else model.versions.get(key.version)
            if route is None:
                del self._queues[key]
                queue.close(NotReady(f"{key} was removed"))
                continue
            if queue.waker.asleep and not route.answers:
                queue.close(NotReady(f"{key} could not be started"))
            queue.follow(
                route.batching,
                _slots(route, table),
                most_slots=_own_slots(route, table),
                replicas=_replicas(route, table),
                idempotent=route.idempotent,
                asleep=route.asleep,
            )

    def admit(self, model: str, version: str | None) -> ModelRoute:
        """What can be refused before a request's body is read or decoded.

        Raises:
            Draining: this ingress is shutting down.
            ModelNotFound: there is no such model.
            VersionNotFound: it has no such version.
            NotReady: the version that will answer has no replica, and no fallback helps.
            Overloaded: its queue is full, and no fallback helps.
        """
        if self.draining:
            raise Draining("this server is shutting down")
        route = self.table.model(model)
        choice = route.only if version is None else choose_version(route, version, "")
        if choice is not None and (refusal := self._refusal(choice.route)) is not None:
            spare = choice.spare
            if spare is None or self._refusal(spare) is not None:
                if choice.arm and route.measured:
                    self.arms.count_fault(choice.route.key)
                raise refusal
        return route

    def _refusal(self, route: VersionRoute) -> ServeAppError | None:
        """Why a version would not take a request now; None: it would."""
        if not route.answers:
            return _not_ready(route)
        queue = self._queues.get(route.key)
        if queue is not None and queue.full:
            return Overloaded("the queue of this version is full")
        return None

    def start(self, request: InferenceRequest, trace: RequestTrace, settle: Settled) -> Ticket:
        """Takes one request in; `settle` hears how it ends, later and from the event loop.

        Args:
            request: what to compute.
            trace: filled in along the way.
            settle: called once with the result or with an error, unless the ticket is cancelled.

        Raises:
            RequestError: the request is at fault.
            Unavailable: not ready, overloaded, or draining.
        """
        if self.draining:
            raise Draining("this server is shutting down")
        model = self.table.model(request.model)
        trace.model = model.name
        choice = choose_version(model, request.version, request.request_id, request.caller)
        route = choice.route
        trace.version = route.key.version
        trace.arm = choice.arm
        layout = request.layout or Layout()
        if layout.model is not model:
            lay_out(layout, model, request, self._limits)
        trace.rows = layout.rows
        timeout_s = route.timeout_s
        if request.timeout_s is not None and request.timeout_s < timeout_s:
            timeout_s = request.timeout_s
        deadline = trace.started + timeout_s
        ticket = Ticket(self, model, choice, layout.outputs, settle)
        try:
            ticket.queue = self.queue(route)
            ticket.member = ticket.queue.submit(
                request.inputs,
                rows=layout.rows,
                size=layout.size,
                deadline=deadline,
                signature=layout.signature,
                trace=trace,
                settle=ticket.settle,
            )
        except ServeAppError as error:
            ticket.refused(error, request.inputs, layout, deadline, trace)
        if model.mirrors and request.version is None:
            ticket.shadows = self.shadows.mirror(model, request, layout, ticket.key, ticket.queue)
        self.in_flight += 1
        return ticket

    async def infer(self, request: InferenceRequest, trace: RequestTrace) -> InferenceResult:
        """Answers one request, for callers that have a task; cancelling it withdraws the request.

        Raises:
            RequestError: the request is at fault.
            Unavailable: not ready, overloaded, draining, or the replica was lost.
            DeadlineExceeded: its deadline passed.
            ModelFailed: the model could not compute it.
        """
        current_request.set(trace)
        answer: asyncio.Future[InferenceResult] = asyncio.get_running_loop().create_future()

        def settle(result: InferenceResult | None, error: ServeAppError | None) -> None:
            if answer.done():  # cancelled in this turn of the loop, and not yet withdrawn
                return
            if result is not None:
                answer.set_result(result)
            else:
                answer.set_exception(error or ServeAppError())

        ticket = self.start(request, trace, settle)
        try:
            return await answer
        finally:
            ticket.cancel()

    def queue(self, route: VersionRoute) -> VersionQueue:
        """The queue of a version of the table in use.

        Raises:
            NotReady: it has no replica, and none can be started.
        """
        if not route.answers:
            raise _not_ready(route)
        queue = self._queues.get(route.key)
        return self._open(route) if queue is None else queue

    def _open(self, route: VersionRoute) -> VersionQueue:
        queue = self._queues[route.key] = VersionQueue(
            route.key,
            self._gateway,
            route.batching,
            slots=_slots(route, self.table),
            most_slots=_own_slots(route, self.table),
            replicas=_replicas(route, self.table),
            idempotent=route.idempotent,
            asleep=route.asleep,
            observe=self._observe,
        )
        return queue


def _not_ready(route: VersionRoute) -> NotReady:
    model, version = route.key
    return NotReady(f"version {version!r} of model {model!r} is not ready")


def _replicas(route: VersionRoute, table: RouteTable) -> int:
    """How many replicas this ingress keeps busy, if all ingresses are."""
    return max(1, -(-route.replicas // max(1, table.ingresses)))


def _own_slots(route: VersionRoute, table: RouteTable) -> int:
    """This ingress' share of the batches that the version's replicas work on at a time."""
    return max(1, route.replicas * route.batching.slots_per_replica // max(1, table.ingresses))


def _slots(route: VersionRoute, table: RouteTable) -> int:
    """How many of them leave before they are full.

    Versions that share a model's traffic share its slots by weight, one per replica at the least:
    fewer arrivals with as many slots would leave as smaller batches. Those that cannot answer
    have no part in that.
    """
    own = _own_slots(route, table)
    weights = {arm.choice.arm: arm.weight for arm in table.models[route.key.model].arms}
    everything = max(1, sum(weights.values()))
    share = weights.get(route.key.version, everything) / everything
    return min(own, max(_replicas(route, table), round(own * share)))
