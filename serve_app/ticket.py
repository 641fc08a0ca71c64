"""One request in the data plane: its answer, its fallback, and what is counted of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Protocol

from serve_app.arms import ArmStatistics
from serve_app.batching import VersionQueue
from serve_app.domain.inference import InferenceResult, Layout, VersionKey
from serve_app.domain.routing import Choice, ModelRoute, RouteTable, VersionRoute
from serve_app.domain.tensor import Array
from serve_app.errors import ModelFailed, NotReady, Overloaded, ReplicaLost, ServeAppError
from serve_app.shadow import Shadow
from serve_app.telemetry.trace import RequestTrace
from serve_app.waiting import Member, settled_already

Settled = Callable[[InferenceResult | None, ServeAppError | None], None]
"""Takes the result of a request or the error that it failed with: exactly one of them is given."""

FALLS_BACK = (NotReady, Overloaded, ReplicaLost, ModelFailed)
"""What a version fails with for want of itself: another one may do better."""


class Plane(Protocol):
    """The data plane, as far as a ticket uses it."""

    arms: ArmStatistics
    table: RouteTable
    in_flight: int

    def queue(self, route: VersionRoute) -> VersionQueue:
        """The queue of a version; raises NotReady."""
        ...


class Ticket:
    """One request that the data plane works on."""

    __slots__ = (
        "_arm",
        "_model",
        "_plane",
        "_settled",
        "_spare",
        "_wanted",
        "key",
        "member",
        "queue",
        "shadows",
    )

    member: Member
    queue: VersionQueue

    def __init__(
        self,
        plane: Plane,
        model: ModelRoute,
        choice: Choice,
        wanted: tuple[str, ...] | None,
        settled: Settled,
    ) -> None:
        self._plane = plane
        self._model = model
        self.key = choice.route.key
        """Who is to answer."""
        self._arm = self.key if choice.arm and model.measured else None
        self._spare = choice.spare
        self._wanted = wanted
        self._settled = settled
        self.shadows: Sequence[Shadow] = ()

    def settle(self, outputs: Mapping[str, Array] | None, error: ServeAppError | None) -> None:
        """The batcher's answer."""
        answer = outputs
        if outputs is not None and self._wanted is not None:
            try:
                answer = {name: outputs[name] for name in self._wanted}
            except KeyError as missing:
                outputs, error = None, ModelFailed(f"the model gave no output {missing}")
        if outputs is None or answer is None:
            error = error or ServeAppError()
            if isinstance(error, FALLS_BACK) and self._fall_back(error):
                return
            self._plane.in_flight -= 1
            self._fail(error)
            return
        self._plane.in_flight -= 1
        if self._arm is not None:
            self._count(self._arm, outputs)
        self._settled(InferenceResult(self.key.model, self.key.version, answer), None)
        for shadow in self.shadows:
            shadow.answered(self.key, outputs)

    def refused(
        self,
        error: ServeAppError,
        inputs: Mapping[str, Array],
        layout: Layout,
        deadline: float,
        trace: RequestTrace,
    ) -> None:
        """The version did not even take the request in.

        Raises:
            ServeAppError: this error, unless the fallback takes it.
        """
        rows, size, signature = layout.rows, layout.size, layout.signature
        self.member = Member(inputs, rows, size, deadline, signature, trace, settled_already)
        if not (isinstance(error, FALLS_BACK) and self._fall_back(error)):
            self._count_fault(error)
            raise error

    def cancel(self) -> None:
        """Withdraws the request, if it has not been settled: nobody hears of it any more."""
        if not self.member.done:
            self._plane.in_flight -= 1
            if self._arm is not None and self.member.flight is not None:
                # Whoever gave up waited for so long: a slow arm must not lose its slowest requests.
                self._plane.arms.count(self._arm, monotonic() - self.member.trace.started)
            self.queue.withdraw(self.member)
            self._abandon()

    def _fall_back(self, error: ServeAppError) -> bool:
        """Hands the request to the fallback, within the same deadline; False: nobody takes it."""
        spare, self._spare = self._spare, None
        if spare is None:
            return False
        self._count_fault(error)
        member, plane, trace = self.member, self._plane, self.member.trace
        try:
            self.queue = plane.queue(plane.table.version(*spare.key))
            self.member = self.queue.submit(
                member.inputs,
                rows=member.rows,
                size=member.size,
                deadline=member.deadline,
                signature=member.signature,
                trace=trace,
                settle=self.settle,
            )
        except ServeAppError:  # the client is told of the first error
            return False
        trace.fallback_from, trace.fallback_reason = trace.version, error.code
        trace.version = spare.key.version
        self.key = spare.key
        return True

    def _fail(self, error: ServeAppError) -> None:
        if error.status >= 500:
            self._count_fault(error)
        elif self._arm is not None:
            self._plane.arms.count(self._arm, monotonic() - self.member.trace.started)
        self._abandon()
        self._settled(None, error)

    def _count(self, arm: VersionKey, outputs: Mapping[str, Array]) -> None:
        arms, trace = self._plane.arms, self.member.trace
        arms.count(arm, monotonic() - trace.started)
        exposing = self._model.exposure
        if exposing is not None:
            arms.expose(exposing, arm, trace.request_id, self.member.rows, outputs)

    def _count_fault(self, error: ServeAppError) -> None:
        """Counts a failure for the arm, once: what a fallback makes of it counts for none."""
        arm, self._arm = self._arm, None
        if arm is not None and error.status >= 500:
            self._plane.arms.count_fault(arm)

    def _abandon(self) -> None:
        for shadow in self.shadows:
            shadow.abandon()
