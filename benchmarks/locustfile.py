"""All users, for Locust: run it from the root of the repository.

locust -f benchmarks/locustfile.py --host http://127.0.0.1:8000 --headless -u 20 -r 20 -t 20s
"""

from __future__ import annotations

import sys
from pathlib import Path

import gevent

# Locust loads this file by its path, with its own folder in front of the search path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.scenarios.digits_user import DigitsUser
from benchmarks.scenarios.monitor_user import MonitorUser
from benchmarks.scenarios.text_user import TextUser

# gevent's clock stands still while modules are imported. Locust would count these seconds as part
# of the run time, and on a busy machine end the run at its start.
gevent.get_hub().loop.update_now()

__all__ = ["DigitsUser", "MonitorUser", "TextUser"]
