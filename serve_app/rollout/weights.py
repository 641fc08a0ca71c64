"""Weights on the way from one release to another."""

from __future__ import annotations

from collections.abc import Mapping


def gaining(origin: Mapping[str, int], target: Mapping[str, int]) -> tuple[str, ...]:
    """The versions whose weight grows on the way."""
    return tuple(name for name in target if target[name] > origin.get(name, 0))


def losing(origin: Mapping[str, int], target: Mapping[str, int]) -> tuple[str, ...]:
    """The versions whose weight shrinks on the way."""
    return tuple(name for name in origin if target.get(name, 0) < origin[name])


def interpolate(
    origin: Mapping[str, int], target: Mapping[str, int], percent: int
) -> dict[str, int]:
    """Whole percents, 100 in all, this far on the way from origin to target.

    Between the ends at least one point has moved, else a step would wait for samples that cannot
    come. The points that have moved are shared out by the divisor method of Webster
    (Balinski and Young 1982). Unlike largest remainders it takes no point back when there is one
    more to share, so no weight ever turns round while the percentage rises.

    Args:
        origin: version -> weight, 100 in all.
        target: version -> weight, 100 in all.
        percent: 0 is the origin, 100 the target.

    Raises:
        ValueError: weights that are not 100 in all, or a percentage that is none.
    """
    if not 0 <= percent <= 100 or sum(origin.values()) != 100 or sum(target.values()) != 100:
        raise ValueError(f"no way of {percent} % from {dict(origin)} to {dict(target)}")
    names = dict.fromkeys([*origin, *target])
    changes = {name: target.get(name, 0) - origin.get(name, 0) for name in names}
    whole = sum(change for change in changes.values() if change > 0)
    moved = (2 * whole * percent + 100) // 200
    if percent:
        moved = min(max(moved, 1), whole)
    gained = _share({name: change for name, change in changes.items() if change > 0}, moved)
    lost = _share({name: -change for name, change in changes.items() if change < 0}, moved)
    return {name: origin.get(name, 0) + gained.get(name, 0) - lost.get(name, 0) for name in names}


def _share(claims: Mapping[str, int], points: int) -> dict[str, int]:
    """So many points in proportion to claims; of equal ones the first comes first."""
    shares = dict.fromkeys(claims, 0)
    for _ in range(points):
        shares[max(claims, key=lambda name: claims[name] / (2 * shares[name] + 1))] += 1
    return shares
