"""Times and durations as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def ago(moment: datetime) -> str:
    """How long a moment is past, such as "3 min ago"."""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} s ago"


def lasting(seconds: float) -> str:
    """A duration that somebody has chosen, such as "90 s" or "5 min"."""
    for size, unit in _UNITS:
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def clock(seconds: float) -> str:
    """A duration that goes on, such as "3:12"."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}"
