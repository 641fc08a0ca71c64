"""What the command line sets for all scenarios."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """How long, how often and with how many connections to measure."""

    seconds: float = 6.0
    repeats: int = 3
    tell: Callable[[str], None] = print
    """Gets one line per step."""
    connections: tuple[int, ...] = ()
    """None: those that the scenario would choose."""
    minutes: float = 5.0
    """Of steady load."""
