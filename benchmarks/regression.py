"""Has it become slower? Ratios to a reference of the same run, against those of a stored run.

Requests per second of two days or two machines must not be compared. What can be compared is how
many times as fast as a server that nobody changes the product was in one run, and in another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cluster import NAME
from benchmarks.errors import BenchmarkError
from benchmarks.musts import ratio
from benchmarks.run_digits import BARE
from benchmarks.run_large import BARE_BODY
from benchmarks.run_minilm import PLAIN
from benchmarks.run_protocols import BARE_GRPC, BINARY, GRPC, JSON

TOLERANCE = 0.1
REFERENCES = (
    ("digits", NAME, BARE),
    ("protocols", JSON, BARE),
    ("protocols", BINARY, BARE),
    ("protocols", GRPC, BARE_GRPC),
    ("large", NAME, BARE_BODY),
    ("minilm", NAME, PLAIN),
)
"""Scenario, what is ours in it, and what it is held against."""
FIGURES = {"requests_per_s": 1, "cpu_us": -1}
"""Figure -> 1 if more of it is better, -1 if less."""


@dataclass(frozen=True, slots=True)
class Change:
    """One ratio, then and now."""

    text: str
    point: str
    figure: str
    then: float
    now: float
    regressed: bool

    @property
    def relative(self) -> float:
        """By how much the ratio has changed."""
        return self.now / self.then - 1.0


def load(path: Path) -> dict[str, Any]:
    """Reads a stored run.

    Raises:
        BenchmarkError: there is none.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as exc:
        raise BenchmarkError(f"no baseline in {path}: {exc}") from exc
    if not isinstance(found, dict):
        raise BenchmarkError(f"no baseline in {path}: not an object")
    return found


def compare(
    now: Mapping[str, Any], then: Mapping[str, Any], tolerance: float = TOLERANCE
) -> list[Change]:
    """Every ratio that both runs have.

    Args:
        now: results of this run.
        then: the stored ones.
        tolerance: by how much a ratio may be worse, as a share of it.

    Raises:
        BenchmarkError: they have none in common.
    """
    found = []
    for scenario, ours, reference in REFERENCES:
        if scenario not in now or scenario not in then:
            continue
        for point in now[scenario]["servers"].get(ours, {}):
            for figure, better in FIGURES.items():
                one = ratio(now[scenario], ours, reference, point, figure)
                other = ratio(then[scenario], ours, reference, point, figure)
                if one is None or not other:
                    continue
                text = f"{scenario}: {ours} / {reference}"
                worse = better * (one / other - 1.0) < -tolerance
                found.append(Change(text, point, figure, other, one, worse))
    if not found:
        raise BenchmarkError("this run and the baseline have nothing in common to compare")
    return found
