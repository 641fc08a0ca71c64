"""A number of users that rises at once, and falls again."""

from __future__ import annotations

import time
from typing import Any

from locust import LoadTestShape

PERIOD_S = 10.0
SPIKE_S = 3.0
FACTOR = 4


class Spikes(LoadTestShape):
    """Every 10 s four times as many users for 3 s; takes --users and --run-time."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """How many users there are now, and how many start per second; None at the end."""
        runner: Any = self.runner
        options = runner.environment.parsed_options
        seconds = time.perf_counter() - self.start_time
        if seconds > options.run_time:
            return None
        users = users_at(seconds, options.num_users)
        return users, float(users)


def users_at(seconds: float, usual: int) -> int:
    """The spike comes at the end of each period, so that the run begins calmly."""
    return usual * FACTOR if seconds % PERIOD_S >= PERIOD_S - SPIKE_S else usual
