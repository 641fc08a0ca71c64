"""Text and times as every database takes them and gives them back."""

from __future__ import annotations

from datetime import UTC, datetime


def storable(text: str) -> str:
    """Text without NUL, and without half characters (from undecodable file names)."""
    return text.replace("\0", "").encode("utf-8", "backslashreplace").decode()


def utc(moment: datetime) -> datetime:
    """A stored time; SQLite forgets its zone, which is always UTC."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
