"""Times and durations in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from deployments.wording import ago, clock, lasting


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s ago"), (3, "3 s ago"), (200, "3 min ago"), (7200, "2 h ago"), (3e5, "3 d ago")],
)
def test_how_long_ago(seconds: float, text: str) -> None:
    assert ago(datetime.now(UTC) - timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0.5 s"), (90, "90 s"), (300, "5 min"), (7200, "2 h"), (86_400, "1 d")],
)
def test_how_long(seconds: float, text: str) -> None:
    assert lasting(seconds) == text


def test_a_clock() -> None:
    found = [clock(seconds) for seconds in (0, 9.9, 192.4, 3600)]
    assert found == ["0:00", "0:09", "3:12", "60:00"]
