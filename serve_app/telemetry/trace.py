"""The measurements that travel beside one request."""

from __future__ import annotations

from time import monotonic


class RequestTrace:
    """Filled in along the way of one request; read once, when it is finished.

    Model and version are set only after the route table has confirmed them, so that a label never
    holds what a client made up. The arm is the version that the weights of the release assigned; it
    stays empty where the client pinned the version or a rule decided. If another version answered
    in place of the one that was chosen, `fallback_from` names that one.
    """

    __slots__ = (
        "arm",
        "batch_rows",
        "compute_s",
        "fallback_from",
        "fallback_reason",
        "model",
        "protocol",
        "queue_s",
        "request_id",
        "rows",
        "started",
        "traceparent",
        "transport",
        "version",
    )

    def __init__(self, protocol: str, request_id: str) -> None:
        self.protocol = protocol
        self.request_id = request_id
        self.started = monotonic()
        self.model = ""
        self.version = ""
        self.arm = ""
        self.fallback_from = ""
        self.fallback_reason = ""
        self.rows = 0
        self.queue_s = 0.0
        self.compute_s = 0.0
        self.batch_rows = 0
        self.transport = ""
        self.traceparent = ""
