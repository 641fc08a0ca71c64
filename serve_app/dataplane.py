"""What every protocol calls: check against the signature, choose the version, batch, answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping

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
from serve_app.domain.tensor import DATATYPES, Array, nbytes, shape_fits
from serve_app.errors import (
    Draining,
    InvalidInput,
    ModelFailed,
    NotReady,
    Overloaded,
    PayloadTooLarge,
    ServeAppError,
    VersionNotFound,
)
from serve_app.telemetry.trace import RequestTrace
from serve_app.waiting import ALONE, Member

Settled = Callable[[InferenceResult | None, ServeAppError | None], None]
"""Takes the result of a request or the error that it failed with: exactly one of them is given."""


class Ticket:
    """One request that the data plane works on."""

    __slots__ = ("_key", "_plane", "_queue", "_settled", "_wanted", "member")

    member: Member

    def __init__(
        self,
        plane: DataPlane,
        queue: VersionQueue,
        key: VersionKey,
        wanted: tuple[str, ...] | None,
        settled: Settled,
    ) -> None:
        self._plane = plane
        self._queue = queue
        self._key = key
        self._wanted = wanted
        self._settled = settled

    def settle(self, outputs: Mapping[str, Array] | None, error: ServeAppError | None) -> None:
        """The batcher's answer."""
        self._plane.in_flight -= 1
        if outputs is None:
            self._settled(None, error)
            return
        if self._wanted is not None:
            try:
                outputs = {name: outputs[name] for name in self._wanted}
            except KeyError as missing:
                self._settled(None, ModelFailed(f"the model gave no output {missing}"))
                return
        self._settled(InferenceResult(self._key.model, self._key.version, outputs), None)

    def cancel(self) -> None:
        """Withdraws the request, if it has not been settled: nobody hears of it any more."""
        if not self.member.done:
            self._plane.in_flight -= 1
            self._queue.withdraw(self.member)


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
        routes = {
            route.key: route for model in table.models.values() for route in model.versions.values()
        }
        for key, queue in list(self._queues.items()):
            route = routes.get(key)
            if route is None:
                del self._queues[key]
                queue.close(NotReady(f"{key} was removed"))
            else:
                queue.follow(
                    route.batching,
                    _slots(route, table),
                    replicas=_replicas(route, table),
                    idempotent=route.idempotent,
                )

    def admit(self, model: str, version: str | None) -> ModelRoute:
        """What can be refused before a request's body is read or decoded.

        Raises:
            Draining: this ingress is shutting down.
            ModelNotFound: there is no such model.
            VersionNotFound: it has no such version.
            Overloaded: the queue of the version that will answer is full.
        """
        if self.draining:
            raise Draining("this server is shutting down")
        route = self.table.model(model)
        if version is not None:
            target = route.versions.get(version)
            if target is None:
                raise VersionNotFound(model, version)
        else:
            target = route.arms[0][1] if len(route.arms) == 1 else None
        if target is not None:
            queue = self._queues.get(target.key)
            if queue is not None and queue.full:
                raise Overloaded("the queue of this version is full")
        return route

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
        route = choose_version(model, request.version, request.request_id)
        trace.version = route.key.version
        if request.version is None:
            trace.arm = trace.version
        layout = request.layout or Layout()
        if layout.model is not model:
            self._lay_out(layout, model, request)
        trace.rows = layout.rows
        timeout_s = route.timeout_s
        if request.timeout_s is not None and request.timeout_s < timeout_s:
            timeout_s = request.timeout_s
        queue = self._queues.get(route.key)
        if queue is None:
            queue = self._open(route)
        ticket = Ticket(self, queue, route.key, layout.outputs, settle)
        ticket.member = queue.submit(
            request.inputs,
            rows=layout.rows,
            size=layout.size,
            deadline=trace.started + timeout_s,
            signature=layout.signature,
            trace=trace,
            settle=ticket.settle,
        )
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

    def _open(self, route: VersionRoute) -> VersionQueue:
        queue = self._queues[route.key] = VersionQueue(
            route.key,
            self._gateway,
            route.batching,
            slots=_slots(route, self.table),
            replicas=_replicas(route, self.table),
            idempotent=route.idempotent,
            observe=self._observe,
        )
        return queue

    def _lay_out(self, layout: Layout, model: ModelRoute, request: InferenceRequest) -> None:
        """Checks a request and notes what every request of its layout has in common."""
        inputs = request.inputs
        rows, signature = self._check(model, inputs)
        outputs = _wanted(model, request.outputs) if request.outputs else None
        layout.rows, layout.signature, layout.outputs = rows, signature, outputs
        layout.size = sum([nbytes(array) for array in inputs.values()])
        layout.model = model

    def _check(self, model: ModelRoute, inputs: Mapping[str, Array]) -> tuple[int, Hashable]:
        """Checks names, datatypes, shapes and rows; returns rows and the batching signature.

        The common case, rows that are all alike and nothing wrong, is decided in a few comparisons;
        everything else takes the long way, which also finds the words.
        """
        rows = 0
        for name, dtype, row_shape in model.row_inputs:
            array = inputs.get(name)
            if array is None or array.dtype is not dtype or array.shape[1:] != row_shape:
                break
            count = array.shape[0] if array.ndim else 0
            if rows and rows != count:
                break
            rows = count
        else:
            if len(inputs) == len(model.row_inputs) and 0 < rows <= self._limits.max_rows:
                return rows, ()
        return self._check_slowly(model, inputs)

    def _check_slowly(self, model: ModelRoute, inputs: Mapping[str, Array]) -> tuple[int, Hashable]:
        if len(inputs) > self._limits.max_tensors:
            raise PayloadTooLarge(f"at most {self._limits.max_tensors} inputs", "inputs")
        rows = 1
        signature: list[tuple[int, ...]] = []
        for spec in model.inputs:
            array = inputs.get(spec.name)
            if array is None:
                raise InvalidInput(
                    f"input {spec.name!r} is missing; this model takes "
                    + ", ".join(repr(each.name) for each in model.inputs),
                    "inputs",
                )
            if array.dtype != spec.dtype:
                raise InvalidInput(
                    f"input {spec.name!r}: datatype {DATATYPES[array.dtype]} is not the declared "
                    f"{spec.datatype}",
                    f"inputs[{list(inputs).index(spec.name)}].datatype",
                )
            shape = array.shape
            if not shape_fits(shape, spec.shape):
                raise InvalidInput(
                    f"input {spec.name!r}: shape {list(shape)} does not fit the declared "
                    f"{list(spec.shape)}",
                    f"inputs[{list(inputs).index(spec.name)}].shape",
                )
            signature.append(shape[1:])
        if len(inputs) != len(model.inputs):
            declared = {spec.name for spec in model.inputs}
            extra = next(name for name in inputs if name not in declared)
            raise InvalidInput(
                f"input {extra!r} is not an input of this model; it takes "
                + ", ".join(map(repr, sorted(declared))),
                f"inputs[{list(inputs).index(extra)}].name",
            )
        if not model.batchable:
            return 1, ALONE
        rows = self._rows(inputs)
        return rows, tuple(signature)

    def _rows(self, inputs: Mapping[str, Array]) -> int:
        sizes = {array.shape[0] for array in inputs.values()}
        if len(sizes) > 1:
            raise InvalidInput(
                f"all inputs must have the same number of rows, not {sorted(sizes)}",
                "inputs",
            )
        rows: int = sizes.pop()
        if rows == 0:
            raise InvalidInput("at least one row is needed", "inputs[0].shape")
        if rows > self._limits.max_rows:
            raise PayloadTooLarge(
                f"{rows} rows are more than the allowed {self._limits.max_rows}", "inputs[0].shape"
            )
        return rows


def _replicas(route: VersionRoute, table: RouteTable) -> int:
    """How many replicas this ingress keeps busy, if all ingresses are."""
    return max(1, -(-route.replicas // max(1, table.ingresses)))


def _slots(route: VersionRoute, table: RouteTable) -> int:
    """This ingress' share of the batches that the version's replicas work on at a time."""
    total = route.replicas * route.batching.slots_per_replica
    return max(1, total // max(1, table.ingresses))


def _wanted(model: ModelRoute, names: tuple[str, ...]) -> tuple[str, ...]:
    """The requested outputs, checked."""
    declared = [spec.name for spec in model.outputs]
    for index, name in enumerate(names):
        if name not in declared:
            raise InvalidInput(
                f"output {name!r} is not an output of this model; it has "
                + ", ".join(map(repr, declared)),
                f"outputs[{index}].name",
            )
    return names
