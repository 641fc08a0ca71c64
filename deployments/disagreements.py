"""Sampled answers of shadows that differed, of all ingresses: kept in memory only."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from serve_app.domain.arms import Disagreement

KEPT = 200
"""Per model; the oldest go first."""


class Disagreements:
    """The newest of each model."""

    def __init__(self) -> None:
        self._kept: dict[str, deque[Disagreement]] = {}

    def take(self, found: Iterable[Disagreement]) -> None:
        """Keeps what an ingress has sampled."""
        for each in found:
            self._kept.setdefault(each.primary.model, deque(maxlen=KEPT)).appendleft(each)

    def newest(self, model: str, limit: int) -> Sequence[Mapping[str, Any]]:
        """The newest first, ready for JSON."""
        return [
            {
                "request_id": each.request_id,
                "version": each.primary.version,
                "shadow": each.shadow.version,
                "at": each.at,
                "differences": dict(each.differences),
            }
            for each in list(self._kept.get(model, ()))[:limit]
        ]
