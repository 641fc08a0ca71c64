"""When users send: at times of their own, not when they have their answer."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any


def arrivals(per_s: float) -> Callable[[Any], float]:
    """A `wait_time` for Locust: random arrivals (Poisson) at this rate per user, an open loop.

    The next request is due some time after the last one was *due*. Who has waited for an answer
    past that sends at once: a server that gets slow is not asked less.
    """

    def wait(user: Any) -> float:
        now = time.monotonic()
        user.due = getattr(user, "due", now) + random.expovariate(per_s)
        return max(0.0, float(user.due) - now)

    return wait
