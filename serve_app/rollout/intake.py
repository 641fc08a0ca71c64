"""Which reports of ingresses have been counted already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

WINDOW = 64
"""How far behind the newest of its ingress a report may arrive; ingresses send one each second."""

MOST = 1_024
"""Ingresses that are remembered; those that have been silent for longest are forgotten."""


class Intake:
    """Takes each report once, in whatever order they come.

    An ingress names itself anew whenever its numbers start again, and repeats a report until it is
    taken. Per ingress the newest number and a bit for each of those before it are enough.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, int]] = {}

    def take(self, ingress: str, sequence: int) -> bool:
        """Whether this report is new; from then on it is not.

        One that is older than the window counts as seen: to lose a second of data is harmless, to
        count one twice is not.
        """
        newest, bits = self._seen.pop(ingress, (sequence, 0))
        if sequence > newest:
            bits = (bits << min(sequence - newest, WINDOW)) & ((1 << WINDOW) - 1)
            newest = sequence
        mark = 1 << (newest - sequence) if newest - sequence < WINDOW else 0
        new = bool(mark) and not bits & mark
        self._seen[ingress] = newest, bits | mark
        if len(self._seen) > MOST:
            del self._seen[next(iter(self._seen))]
        return new

    def state(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {name: [newest, f"{bits:x}"] for name, (newest, bits) in self._seen.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The reverse of `state`."""
        found = cls()
        found._seen = {name: (newest, int(bits, 16)) for name, (newest, bits) in state.items()}
        return found
