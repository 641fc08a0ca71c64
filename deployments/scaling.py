"""How many replicas a version wants, from what its replicas say of themselves.

Serve sees only the calls of its own handles. Batches on direct channels are reported by
`ModelReplica.record_autoscaling_stats`, so that the decision is the same on both transports. Serve
applies the delays and the bounds of the deployment's `autoscaling_config` to what comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.serve.config import AutoscalingContext

from serve_app.load_meter import Load

ONGOING = "ongoing"
BACKLOG = "backlog@"
"""And the node of the replica: replicas of one node hear of the same queues."""
UTILISATION = "utilisation"
QUEUE_DELAY_MS = "queue_delay_ms"

FULL = 0.8
"""Utilisation that a replica is meant to have at most."""


def stats(load: Load, node: str) -> dict[str, float]:
    """What a replica on a node reports of itself."""
    return {
        ONGOING: load.ongoing,
        f"{BACKLOG}{node}": load.backlog,
        UTILISATION: load.utilisation,
        QUEUE_DELAY_MS: load.queue_delay_s * 1000.0,
    }


def batches_in_work(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """Replicas = batches in work or waiting / target per replica, and as many as keep none full.

    A replica tells the ingresses of its node apart, and takes all others for one. So what waits on
    nodes without a replica of the version counts too little rather than too much.

    Where there is no replica only calls that wait at handles speak: Serve starts one for them at
    once, without asking here.

    Runs inside Serve's controller: no I/O, nothing that blocks.
    """
    reported = context.aggregated_metrics or {}
    ongoing = sum(reported.get(ONGOING, {}).values())
    # On one node each replica hears of the same queues in the ingresses: their mean, not their sum.
    waiting = sum(_mean(by) for name, by in reported.items() if name.startswith(BACKLOG))
    at_handles = float(context.total_queued_requests or 0.0)
    config: Any = context.config
    by_batches = (ongoing + waiting + at_handles) / config.get_target_ongoing_requests()
    # Rows gather in the ingress while a model computes: one that is busy all the time may have no
    # more than a batch in work. Its utilisation tells.
    busy = sum(reported.get(UTILISATION, {}).values())
    # One that has just started, for somebody who waits, has said nothing yet: it is not idle.
    unheard = context.current_num_replicas - len(reported.get(ONGOING, {}))
    return max(by_batches, busy / FULL, float(unheard)), {}


def _mean(values: Mapping[Any, float]) -> float:
    return sum(values.values()) / len(values) if values else 0.0
