"""Statistics that releases stand on: tests to watch all the time, verdicts, traffic weights.

Pure: no clock, no I/O, no hidden randomness. What must outlive its owner has `state()` and
`from_state()`. Why these tests and no others: docs/decisions/0017-sequential-tests.md.
"""

from serve_app.evidence.bandit import best_probabilities, percents
from serve_app.evidence.histogram import LatencyHistogram
from serve_app.evidence.intervals import Interval
from serve_app.evidence.latency import LatencyRatioTest
from serve_app.evidence.margin import MeanTest
from serve_app.evidence.moments import Moments
from serve_app.evidence.sequential import Counts, LimitTest, RatioTest
from serve_app.evidence.verdict import Arm, Comparison, Summary, Verdict, summarize, verdict

__all__ = [
    "Arm",
    "Comparison",
    "Counts",
    "Interval",
    "LatencyHistogram",
    "LatencyRatioTest",
    "LimitTest",
    "MeanTest",
    "Moments",
    "RatioTest",
    "Summary",
    "Verdict",
    "best_probabilities",
    "percents",
    "summarize",
    "verdict",
]
