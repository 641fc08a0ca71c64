"""How many replicas a version wants, from what its replicas say of themselves.

Serve sees only the calls of its own handles. Batches on direct channels are reported by
`ModelReplica.record_autoscaling_stats`, so that the decision is the same on both transports. Serve
applies the delays and the bounds of the deployment's `autoscaling_config` to what comes out.
"""

from __future__ import annotations

from typing import Any

from ray.serve.config import AutoscalingContext

ONGOING = "ongoing"
BACKLOG = "backlog"
UTILISATION = "utilisation"
QUEUE_DELAY_MS = "queue_delay_ms"

FULL = 0.8
"""Utilisation that a replica is meant to have at most."""


def batches_in_work(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """Replicas = batches in work or waiting / target per replica, and as many as keep none full.

    Several nodes: a replica hears of the queues of those ingresses that reach it by channel, which
    makes the backlog too small rather than too large.

    Runs inside Serve's controller: no I/O, nothing that blocks.
    """
    reported = context.aggregated_metrics or {}
    ongoing = sum(reported.get(ONGOING, {}).values())
    # On one node each replica hears of the same queues in the ingresses: their mean, not their sum.
    backlogs = list(reported.get(BACKLOG, {}).values())
    waiting = sum(backlogs) / len(backlogs) if backlogs else 0.0
    at_handles = float(context.total_queued_requests or 0.0)
    config: Any = context.config
    by_batches = (ongoing + waiting + at_handles) / config.get_target_ongoing_requests()
    # Rows gather in the ingress while a model computes: one that is busy all the time may have no
    # more than a batch in work. Its utilisation tells.
    busy = sum(reported.get(UTILISATION, {}).values())
    return max(by_batches, busy / FULL), {}
