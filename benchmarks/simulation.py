"""Canaries that never were: many runs of made-up traffic, judged after every second.

Each function returns at which look (1, 2, ...) each run was judged to be broken, 0 if never. Rates
are tested for all runs at once by the functions that the product's classes use; the other tests are
the classes themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from serve_app.evidence.histogram import LatencyHistogram
from serve_app.evidence.intervals import anytime_difference
from serve_app.evidence.latency import LatencyRatioTest
from serve_app.evidence.margin import ENOUGH, MeanTest
from serve_app.evidence.moments import Moments
from serve_app.evidence.sequential import limit_factors, ratio_factors
from serve_app.evidence.wealth import POINTS, Floats, step, total

ALPHA = 0.05
Ints = NDArray[np.int64]
Draw = Callable[[np.random.Generator, int], Floats]
"""So many outcomes, or latencies in seconds, of one arm."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests of both arms between two looks, the same in every run."""

    candidate: Ints
    stable: Ints


def traffic(
    generator: np.random.Generator, per_look: float, shares: tuple[float, ...], looks: int
) -> Traffic:
    """Poisson arrivals; the candidate's share takes each of the values for an equal time."""
    share = np.repeat(shares, -(-looks // len(shares)))[:looks]
    return Traffic(generator.poisson(per_look * share), generator.poisson(per_look * (1 - share)))


def limit_alarms(
    generator: np.random.Generator, runs: int, trials: Ints, rates: Floats, limit: float
) -> Ints:
    """`LimitTest`; `rates` is the true rate at each look."""

    def factors(look: int) -> Floats:
        events = generator.binomial(trials[look], rates[look], (runs, 1))
        return limit_factors(events.astype(np.float64), float(trials[look]), limit)

    return _first_alarms(runs, np.flatnonzero(trials), factors)


def ratio_alarms(
    generator: np.random.Generator,
    runs: int,
    of: Traffic,
    rates: tuple[Floats, Floats],
    ratio: float,
) -> Ints:
    """`RatioTest`; `rates` are those of the candidate and of stable at each look."""

    def drawn(trials: int, rate: float) -> tuple[Floats, float]:
        events = generator.binomial(trials, rate, (runs, 1))
        return events.astype(np.float64), float(trials)

    def factors(look: int) -> Floats:
        mine = drawn(of.candidate[look], rates[0][look])
        return ratio_factors(mine, drawn(of.stable[look], rates[1][look]), ratio)

    return _first_alarms(runs, np.flatnonzero(of.candidate * of.stable), factors)


def _first_alarms(runs: int, looks: Ints, factors: Callable[[int], Floats]) -> Ints:
    found = np.zeros(runs, dtype=np.int64)
    wealth = np.full((runs, POINTS), -np.inf)
    needed = -log(ALPHA)
    for increment, look in enumerate(looks):
        wealth = step(wealth, increment, factors(int(look)))
        # The sum of all bets is at most their number times the best one.
        close = np.flatnonzero((wealth.max(axis=1) + log(POINTS) >= needed) & (found == 0))
        found[close[total(wealth[close]) >= needed]] = look + 1
    return found


def naive_alarms(
    generator: np.random.Generator,
    runs: int,
    of: Traffic,
    rates: tuple[Floats, Floats],
    ratio: float,
) -> Ints:
    """What is widely done: a z-test on all counts so far, made for one look, at every look."""
    z = NormalDist().inv_cdf(1 - ALPHA)
    found = np.zeros(runs, dtype=np.int64)
    counts = np.zeros((2, runs))
    trials = np.zeros(2)
    for look, arrived in enumerate(zip(of.candidate, of.stable, strict=True)):
        for arm in (0, 1):
            counts[arm] += generator.binomial(arrived[arm], rates[arm][look], runs)
            trials[arm] += arrived[arm]
        if trials.min() < 30:
            continue
        mine, theirs = counts / trials[:, None]
        variance = mine * (1 - mine) / trials[0] + ratio**2 * theirs * (1 - theirs) / trials[1]
        alarms = (mine - ratio * theirs > z * np.sqrt(variance)) & (variance > 0)
        found[alarms & (found == 0)] = look + 1
    return found


def latency_alarms(
    generator: np.random.Generator,
    runs: int,
    of: Traffic,
    draws: tuple[Draw, Draw],
    guard: tuple[float, float],
) -> Ints:
    """`LatencyRatioTest` of a quantile and a ratio, after 1,000 requests to stable alone."""
    found = np.zeros(runs, dtype=np.int64)
    for run in range(runs):
        test = LatencyRatioTest(*guard, ALPHA)
        test.learn(_histogram(draws[1](generator, 1000)))
        for look, (mine, theirs) in enumerate(zip(of.candidate, of.stable, strict=True)):
            arms = (draws[0](generator, mine), draws[1](generator, theirs))
            if test.update(*map(_histogram, arms)):
                found[run] = look + 1
                break
    return found


def _histogram(latencies: Floats) -> LatencyHistogram:
    found = LatencyHistogram()
    found.add_all(latencies)
    return found


def mean_alarms(
    generator: np.random.Generator,
    runs: int,
    of: Traffic,
    draws: tuple[Draw, Draw],
    margin: float,
) -> Ints:
    """`MeanTest` with a margin."""
    found = np.zeros(runs, dtype=np.int64)
    for run in range(runs):
        test = MeanTest(margin, ALPHA)
        arms = (
            _moments(generator, draws[0], of.candidate),
            _moments(generator, draws[1], of.stable),
        )
        for look, (mine, theirs) in enumerate(zip(*arms, strict=True)):
            if test.update(mine, theirs):
                found[run] = look + 1
                break
    return found


def difference_alarms(
    generator: np.random.Generator, runs: int, of: Traffic, draws: tuple[Draw, Draw]
) -> Ints:
    """The interval of a verdict of two arms: the first look at which it leaves 0 out."""
    found = np.zeros(runs, dtype=np.int64)
    for run in range(runs):
        candidate = stable = Moments()
        arms = (
            _moments(generator, draws[0], of.candidate),
            _moments(generator, draws[1], of.stable),
        )
        for look, (mine, theirs) in enumerate(zip(*arms, strict=True)):
            candidate, stable = candidate + mine, stable + theirs
            low, high = anytime_difference(candidate, stable, 1 - ALPHA)
            if min(candidate.count, stable.count) >= ENOUGH and not low <= 0 <= high:
                found[run] = look + 1
                break
    return found


def _moments(generator: np.random.Generator, draw: Draw, counts: Ints) -> list[Moments]:
    """Those of each look."""
    outcomes = draw(generator, int(counts.sum()))
    look = np.repeat(np.arange(len(counts)), counts)
    totals = np.bincount(look, outcomes, len(counts))
    means = totals / np.maximum(counts, 1)
    deviations = np.bincount(look, (outcomes - means[look]) ** 2, len(counts))
    rows = zip(counts.tolist(), totals.tolist(), deviations.tolist(), strict=True)
    return [Moments(*row) for row in rows]


def share_of_alarms(alarms: Ints) -> float:
    """In how many of the runs there was one."""
    return float((alarms > 0).mean())


def slack(runs: int) -> float:
    """Three standard errors of a share of alarms that is truly ALPHA."""
    return 3 * sqrt(ALPHA * (1 - ALPHA) / runs)


def latencies(median_s: float, factor: float = 1.0, slow: float = 0.0) -> Draw:
    """Lognormal latencies (sigma 0.5), `factor` times as long; a share `slow` four times that."""

    def draw(generator: np.random.Generator, count: int) -> Floats:
        found: Floats = factor * median_s * generator.lognormal(0.0, 0.5, count)
        found[generator.random(count) < slow] *= 4
        return found

    return draw


def rewards(rate: float, factor: float = 1.0, sigma: float = 0.0) -> Draw:
    """0, or with this rate a reward around `factor`, lognormal with this sigma."""

    def draw(generator: np.random.Generator, count: int) -> Floats:
        size: Floats = factor * generator.lognormal(-(sigma**2) / 2, sigma, count)
        return np.where(generator.random(count) < rate, size, 0.0)

    return draw


def scores(mean: float) -> Draw:
    """Normal outcomes of standard deviation 1."""
    return lambda generator, count: generator.normal(mean, 1.0, count)
