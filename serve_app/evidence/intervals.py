"""Confidence intervals that hold at every look.

They contain the truth at all times together with the stated confidence, so they may be watched, and
acted on as soon as they say enough. That makes them wider than those for one look at a time that
was fixed beforehand: about 1.5 to 2.3 times.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, lgamma, log, log1p, sqrt
from typing import NamedTuple

from serve_app.evidence.moments import Moments

TUNED_FOR = 1000
"""Outcomes at which `anytime_mean` is about as narrow as it can be made; elsewhere a bit wider."""


class Interval(NamedTuple):
    """From low to high, both inclusive."""

    low: float
    high: float


def _check(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence must lie between 0 and 1, not at {confidence}")


def anytime_width(count: float, alpha: float) -> float:
    """Half the width of `anytime_mean` for a variance of 1.

    The time-uniform central limit theorem (Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas 2024): the
    normal mixture of Robbins (1970), for means of anything that has a variance. `rho_2` is their
    choice for a given number of outcomes, but for a logarithm that stays positive for every alpha.
    """
    rho_2 = (1 - 2 * log(alpha) + log1p(-2 * log(alpha))) / TUNED_FOR
    spread = count * rho_2 + 1
    return sqrt(2 * spread * log(sqrt(spread) / alpha) / (count * count * rho_2))


def anytime_mean(
    outcomes: Moments, confidence: float = 0.95, variance: float | None = None
) -> Interval:
    """Interval of a mean at all times together, asymptotically.

    Args:
        outcomes: what has come.
        confidence: that it holds at all times.
        variance: a larger one than that of the outcomes, where they may be too few to know it.

    Raises:
        ValueError: a confidence that is none.
    """
    _check(confidence)
    if outcomes.count < 2:
        return Interval(-inf, inf)
    assumed = outcomes.variance if variance is None else max(variance, outcomes.variance)
    half = sqrt(assumed) * anytime_width(outcomes.count, 1 - confidence)
    return Interval(outcomes.mean - half, outcomes.mean + half)


def anytime_difference(first: Moments, second: Moments, confidence: float = 0.95) -> Interval:
    """Interval of the difference of two means, first - second, at all times together.

    That of `anytime_mean` for the effect of a treatment in a randomised experiment, with each arm's
    mean as the regression (Waudby-Smith et al. 2024, section 3): narrower than two intervals
    subtracted. Derived for shares of traffic that do not change; that it also holds where they do
    was only measured (docs/reports/false-alarms.md).

    Raises:
        ValueError: a confidence that is none.
    """
    _check(confidence)
    if min(first.count, second.count) < 2:
        return Interval(-inf, inf)
    both = first + second
    # An arm without a rare outcome so far must not pass for one that is known exactly.
    error_2 = sum(max(arm.variance, both.variance) / arm.count for arm in (first, second))
    half = sqrt(error_2 * both.count) * anytime_width(both.count, 1 - confidence)
    difference = first.mean - second.mean
    return Interval(difference - half, difference + half)


def _border(outside: float, inside: float, refuted: Callable[[float], bool]) -> float:
    # Halving: 60 times is to the last bit. The end that is refuted stays outside.
    for _ in range(60):
        middle = (outside + inside) / 2
        if refuted(middle):
            outside = middle
        else:
            inside = middle
    return outside


def anytime_proportion(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Interval of a proportion at all times together, for any number of trials.

    All p that the mixture likelihood ratio, uniform over alternatives, has not refuted (Ville 1939,
    Robbins 1970): B(x + 1, n - x + 1) / (p^x (1 - p)^(n - x)) < 1 / alpha.

    Raises:
        ValueError: not 0 <= successes <= trials, or a confidence that is none.
    """
    centre = Moments.of_counts(successes, trials).mean
    _check(confidence)
    failures = trials - successes
    log_mixture = lgamma(successes + 1) + lgamma(failures + 1) - lgamma(trials + 2)
    least = log_mixture + log(1 - confidence)

    def refuted(p: float) -> bool:
        likelihood = successes * log(p) if successes else 0.0
        return likelihood + (failures * log1p(-p) if failures else 0.0) <= least

    low = 0.0 if successes == 0 else _border(0.0, centre, refuted)
    high = 1.0 if failures == 0 else _border(1.0, centre, refuted)
    return Interval(low, high)
