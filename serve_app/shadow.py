"""Mirrored requests: computed by another version as well, compared, and thrown away.

A shadow must never be felt. It starts when the client's own request has left for its replica, and
only while nothing waits: neither in the queue of that request nor in its own. It is not retried,
not logged, not counted as a request, and whatever becomes of it ends here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from time import monotonic
from typing import NamedTuple, Protocol

from serve_app.arms import ArmStatistics
from serve_app.batching import VersionQueue
from serve_app.domain.assignment import key_of, uniform
from serve_app.domain.comparison import differences
from serve_app.domain.inference import InferenceRequest, Layout, VersionKey
from serve_app.domain.release import Compare
from serve_app.domain.routing import MirrorRoute, ModelRoute, VersionRoute
from serve_app.domain.tensor import Array
from serve_app.errors import NotReady, Overloaded, ServeAppError
from serve_app.telemetry.trace import RequestTrace
from serve_app.waiting import ALONE, Member

logger = logging.getLogger(__name__)

MAX_OUT = 64
"""Shadows of one version that are out at a time."""
PROTOCOL = "shadow"

_NO_ROOM = (NotReady, Overloaded)


class Queues(Protocol):
    """The data plane, as far as shadows use it."""

    def queue(self, route: VersionRoute) -> VersionQueue:
        """The queue of a version; raises NotReady."""
        ...


class Answer(NamedTuple):
    """Outputs, and whose they are."""

    key: VersionKey
    outputs: Mapping[str, Array]


class Shadow:
    """One request to one mirrored version."""

    __slots__ = (
        "_answer",
        "_layout",
        "_member",
        "_own",
        "_queue",
        "_request",
        "_shadows",
        "compare",
        "mirror",
        "over",
        "primary",
    )

    def __init__(
        self,
        shadows: Shadows,
        mirror: MirrorRoute,
        compare: Compare,
        request: InferenceRequest,
        layout: Layout,
        primary: VersionQueue,
    ) -> None:
        self.mirror = mirror
        self.compare = compare
        """When its answer agrees with the client's."""
        self.primary = primary
        """Where the client's own request has gone."""
        self.over = False
        """Whether nobody will compare it any more."""
        self._shadows = shadows
        self._request = request
        self._layout = layout
        self._queue: VersionQueue | None = None
        self._member: Member | None = None
        self._answer: Answer | None = None
        self._own: Mapping[str, Array] | None = None

    @property
    def key(self) -> VersionKey:
        """The version that is mirrored to."""
        return self.mirror.route.key

    @property
    def request_id(self) -> str:
        """That of the client's request."""
        return self._request.request_id

    def answered(self, key: VersionKey, outputs: Mapping[str, Array]) -> None:
        """The client got these outputs, from this version."""
        if key == self.key:  # a fallback: it would be compared with itself
            self.abandon()
            return
        self._answer = Answer(key, outputs)
        self._compare()

    def abandon(self) -> None:
        """The client gets no answer: there is nothing to compare with."""
        self.over = True
        if self._queue is not None and self._member is not None and not self._member.done:
            self._queue.withdraw(self._member)
            self._shadows.landed(self)

    def start(self, queue: VersionQueue) -> None:
        """Sends the request on its way.

        Raises:
            ServeAppError: the queue does not take it.
        """
        layout = self._layout
        trace = RequestTrace(PROTOCOL, self.request_id)
        trace.model, trace.version = self.key
        member = queue.submit(
            self._request.inputs,
            rows=layout.rows,
            size=layout.size,
            deadline=monotonic() + self.mirror.route.timeout_s,
            # It shares no batch with clients, whose answers would wait for its rows.
            signature=ALONE if layout.signature is ALONE else (PROTOCOL, layout.signature),
            trace=trace,
            settle=self._settle,
        )
        member.retried = True  # once is enough
        self._queue, self._member = queue, member

    def _settle(self, outputs: Mapping[str, Array] | None, error: ServeAppError | None) -> None:
        shadows = self._shadows
        shadows.landed(self)
        if outputs is None:
            self.over = True
            tally = shadows.statistics.shadow(self.key)
            if isinstance(error, _NO_ROOM):
                tally.dropped += 1
            else:
                tally.failed += 1
            return
        self._own = outputs
        self._compare()

    def _compare(self) -> None:
        """Once both answers are there, after everybody who waits for this batch has theirs."""
        if self._answer is not None and self._own is not None and not self.over:
            self.over = True
            loop = asyncio.get_running_loop()
            loop.call_soon(self._shadows.compare, self, self._answer, self._own)


class Shadows:
    """The mirrored requests of one ingress. Belongs to one event loop."""

    def __init__(self, queues: Queues, statistics: ArmStatistics) -> None:
        self.statistics = statistics
        self._queues = queues
        self._pending: list[Shadow] = []
        self._out: dict[VersionKey, int] = {}

    @property
    def out(self) -> int:
        """Shadows that have been sent and not come back."""
        return sum(self._out.values())

    def mirror(
        self,
        model: ModelRoute,
        request: InferenceRequest,
        layout: Layout,
        key: VersionKey,
        primary: VersionQueue,
    ) -> list[Shadow]:
        """Notes the copies of a request that its release asks for; they start a moment later.

        Args:
            model: the model's route.
            request: what was sent to the primary.
            layout: what is known of it.
            key: the primary, who is to answer the client.
            primary: its queue.

        Returns:
            The copies; each must hear of the answer by `answered` or `abandon`.
        """
        hashed = key_of(request.request_id)
        shadows = [
            Shadow(self, mirror, model.release.compare, request, layout, primary)
            for mirror in model.mirrors
            if mirror.route.key != key and uniform(mirror.seed, hashed) < mirror.share
        ]
        if shadows:
            if not self._pending:
                # The queues, which flush at the end of this turn, come first.
                asyncio.get_running_loop().call_soon(self._start)
            self._pending += shadows
        return shadows

    def landed(self, shadow: Shadow) -> None:
        """A shadow is out no more."""
        left = self._out[shadow.key] - 1
        if left:
            self._out[shadow.key] = left
        else:
            del self._out[shadow.key]

    def compare(self, shadow: Shadow, answer: Answer, own: Mapping[str, Array]) -> None:
        """Compares two answers and counts the result."""
        try:
            found = differences(shadow.compare, answer.outputs, own)
        except Exception:
            logger.exception(
                "cannot compare",
                extra={
                    "action": "compare",
                    "request_id": shadow.request_id,
                    **shadow.key._asdict(),
                },
            )
            self.statistics.shadow(shadow.key).failed += 1
            return
        tally = self.statistics.shadow(shadow.key)
        tally.compared += 1
        if found:
            tally.disagreed += 1
            self.statistics.disagree(shadow.request_id, answer.key, shadow.key, found)

    def _start(self) -> None:
        """Starts the shadows of this turn that there is room for."""
        pending, self._pending = self._pending, []
        ways: dict[VersionKey, VersionQueue | None] = {}
        for shadow in pending:
            if shadow.over:
                continue
            key = shadow.key
            if key not in ways:
                ways[key] = self._way(shadow.mirror)
            queue = ways[key]
            out = self._out.get(key, 0)
            if queue is not None and out < MAX_OUT and not shadow.primary.queued_rows:
                try:
                    shadow.start(queue)
                except ServeAppError:
                    pass
                else:
                    self._out[key] = out + 1
                    continue
            shadow.over = True
            self.statistics.shadow(key).dropped += 1

    def _way(self, mirror: MirrorRoute) -> VersionQueue | None:
        """The queue of a mirrored version, if shadows may use it now.

        A version that has clients of its own must be idle.
        """
        try:
            queue = self._queues.queue(mirror.route)
        except NotReady:
            return None
        busy = queue.queued_rows or (mirror.candidate and queue.in_flight)
        return None if busy else queue
