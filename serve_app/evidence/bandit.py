"""Traffic in proportion to the probability of being best (Thompson 1933)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import numpy as np

from serve_app.evidence.moments import Moments
from serve_app.evidence.wealth import Floats

DRAWS = 20_000
"""A probability of 50 % is then known to within 0.7 points, 95 % of the time."""


def best_probabilities(
    arms: Sequence[Moments], generator: np.random.Generator, *, binary: bool, draws: int = DRAWS
) -> Floats:
    """How probable it is of each arm that its mean is the highest, by Monte Carlo.

    Args:
        arms: outcomes of each.
        generator: where chance comes from; the same state gives the same answer.
        binary: outcomes are 0 or 1, and posteriors Beta(1 + successes, 1 + failures). Else they are
            normal, with one imagined outcome at the mean of all arms, so that an arm without
            outcomes is as uncertain as one outcome is.
        draws: from each posterior.

    Returns:
        Shape [arms]; sums to 1.

    Raises:
        ValueError: there are no arms.
    """
    if not arms:
        raise ValueError("no arms")
    size = (draws, len(arms))
    counts = np.array([arm.count for arm in arms])
    totals = np.array([arm.total for arm in arms])
    if binary:
        drawn = generator.beta(1 + totals, 1 + counts - totals, size)
    else:
        everything = reduce(add, arms)
        variances = np.array([(a.deviations + everything.variance) / (a.count + 1) for a in arms])
        means = (totals + everything.mean) / (counts + 1)
        drawn = generator.normal(means, np.sqrt(variances / (counts + 1)), size)
    # Arms that draw the same, such as two without any variance, share the win.
    best = drawn == drawn.max(axis=1, keepdims=True)
    shares: Floats = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
    return shares


def percents(shares: Sequence[float] | Floats, floor: int = 0, ceiling: int = 100) -> list[int]:
    """Whole percents in proportion to shares, each within bounds, 100 in all.

    What the bounds take from one arm, the others share in proportion; what is left by rounding goes
    to the largest remainders, of equal ones to the first.

    Args:
        shares: not negative, not all 0.
        floor: least percent of an arm: what it takes to go on learning about it.
        ceiling: most percent of an arm.

    Raises:
        ValueError: no such percents exist.
    """
    wanted = np.asarray(shares, dtype=np.float64)
    count = len(wanted)
    if not count or wanted.min() < 0 or not 0 < wanted.sum() < np.inf:
        raise ValueError(f"no shares: {list(shares)}")
    if not 0 <= floor <= ceiling <= 100 or not floor * count <= 100 <= ceiling * count:
        raise ValueError(f"{count} arms of {floor} to {ceiling} percent cannot sum up to 100")
    # A share of 0 may have to take what others may not: then it needs a proportion.
    exact = _within(np.maximum(wanted / wanted.sum(), 1e-9), floor, ceiling)
    found = np.floor(exact + 1e-6).astype(int)
    remainders = np.where(found < ceiling, exact - found, -np.inf)
    for index in np.argsort(-np.round(remainders, 6), kind="stable")[: 100 - found.sum()]:
        found[index] += 1
    return [int(percent) for percent in found]


def _within(shares: Floats, floor: int, ceiling: int) -> Floats:
    """`factor x shares` cut to the bounds, with the factor that makes it sum up to 100."""
    low, high = 0.0, 100.0 / float(shares.min())
    for _ in range(100):
        factor = (low + high) / 2
        if np.clip(factor * shares, floor, ceiling).sum() < 100:
            low = factor
        else:
            high = factor
    found: Floats = np.clip(high * shares, floor, ceiling)
    return found
