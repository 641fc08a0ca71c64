"""All users, with spikes, for Locust: run it from the root of the repository.

locust -f benchmarks/locustfile_spikes.py --host http://127.0.0.1:8000 --headless -u 20 -t 60s
"""

from __future__ import annotations

import sys
from pathlib import Path

# Locust loads this file by its path, with its own folder in front of the search path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.locustfile import DigitsUser, MonitorUser, TextUser
from benchmarks.scenarios.spikes import Spikes

__all__ = ["DigitsUser", "MonitorUser", "Spikes", "TextUser"]
