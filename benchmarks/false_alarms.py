"""How often the tests of `serve_app/evidence` cry wolf, and how soon they see one.

``python -m benchmarks.false_alarms``. Needs no cluster; the same seed gives the same table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.arguments import positive
from benchmarks.simulation import (
    ALPHA,
    Draw,
    Ints,
    Traffic,
    difference_alarms,
    latencies,
    latency_alarms,
    limit_alarms,
    mean_alarms,
    naive_alarms,
    ratio_alarms,
    rewards,
    scores,
    share_of_alarms,
    slack,
    traffic,
)

REPORT = Path("docs/reports/false-alarms.md")
PER_SECOND = 50.0

RATES = (
    # rate of stable, allowed ratio, shares of the candidate
    (0.0, 1.0, (0.1,)),
    (0.001, 1.0, (0.01,)),
    (0.001, 1.5, (0.5,)),
    (0.01, 1.0, (0.01, 0.1, 0.5)),
    (0.01, 1.5, (0.1,)),
    (0.01, 1.5, (0.01, 0.1, 0.5)),
    (0.2, 1.0, (0.01,)),
    (0.2, 1.0, (0.5,)),
    (0.2, 1.5, (0.01, 0.1, 0.5)),
    (1.0, 1.0, (0.5,)),
)
LIMITS = (0.001, 0.01, 0.2)
LATENCIES = (
    # factor on the candidate's latencies, guard (quantile, ratio), shares
    (1.0, (0.99, 1.0), (0.1,)),
    (1.5, (0.99, 1.5), (0.1,)),
    (1.25, (0.5, 1.25), (0.01, 0.1, 0.5)),
)
OUTCOMES: tuple[tuple[str, Draw, tuple[float, ...]], ...] = (
    ("normal", scores(0.0), (0.1,)),
    ("normal", scores(0.0), (0.01, 0.1, 0.5)),
    ("0 or 1, 0.1 %", rewards(0.001), (0.1,)),
    ("0 or 1, 1 %", rewards(0.01), (0.9, 0.5, 0.1)),
    ("0 or 1, 50 %", rewards(0.5), (0.5,)),
    ("1 % lognormal, sigma 1", rewards(0.01, sigma=1.0), (0.01,)),
    ("1 % lognormal, sigma 2", rewards(0.01, sigma=2.0), (0.5,)),
)
BROKEN = (
    # rate of the candidate, seconds before it breaks; stable has 0.1 %, ratio 1.2
    (0.2, 0),
    (0.05, 0),
    (0.02, 0),
    (0.005, 0),
    (0.2, 300),
)
SLOW = (
    # what, latencies of the candidate, guard
    ("all twice as slow", latencies(0.02, 2.0), (0.99, 1.25)),
    ("all twice as slow", latencies(0.02, 2.0), (0.99, 1.5)),
    ("all twice as slow", latencies(0.02, 2.0), (0.5, 1.25)),
    ("5 % four times as slow", latencies(0.02, slow=0.05), (0.99, 1.25)),
)
WORSE = (
    # what, outcomes of the candidate and of stable, shares
    ("mean lower by 0.2 deviations", (scores(-0.2), scores(0.0)), (0.5,)),
    ("mean lower by 0.2 deviations", (scores(-0.2), scores(0.0)), (0.1,)),
    ("0 or 1: 10 against 12 %", (rewards(0.1), rewards(0.12)), (0.5,)),
)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is simulated."""

    runs: int
    looks: int
    seed: int

    @property
    def fewer(self) -> Size:
        """For tests that are simulated one by one."""
        return Size(max(self.runs // 5, 1), min(self.looks, 1000), self.seed)

    def generator(self) -> np.random.Generator:
        """The same for every line, so that lines do not depend on one another."""
        return np.random.default_rng(self.seed)


def report(size: Size) -> Iterator[str]:
    """The lines of the report."""
    command = f"--runs {size.runs} --looks {size.looks} --seed {size.seed}"
    yield "# False alarms and detection"
    yield ""
    yield f"Made by `python -m benchmarks.false_alarms {command}`, numpy {np.__version__}."
    yield f"Simulated traffic of {PER_SECOND:g} requests/s (Poisson), one look per second, alpha"
    yield f"{_percent(ALPHA)}. Several shares: the candidate has each of them for an equal time."
    yield ""
    yield from _false_alarms(size)
    yield from _detection(size)


def _false_alarms(size: Size) -> Iterator[str]:
    few = size.fewer
    yield "## Candidates that keep to the limit exactly"
    yield ""
    yield f"Share of runs with an alarm at any look: {size.runs:,} runs of {size.looks:,} looks, or"
    true, highest, of_few = map(_percent, (ALPHA, *(ALPHA + slack(s.runs) for s in (size, few))))
    yield f"{few.runs:,} of {few.looks:,} for latencies and outcomes. Where it is truly {true},"
    yield f"up to {highest} and {of_few} are to be expected by chance (three standard errors)."
    yield "*Naive*: a z-test made for one look, at every look."
    yield ""
    yield "| test | of stable | allowed | share of the candidate | alarms | naive |"
    yield "|---|---|--:|---|--:|--:|"
    shares: tuple[float, ...]
    for rate, ratio, shares in RATES:
        rates = (np.full(size.looks, rate * ratio), np.full(size.looks, rate))
        ours, naive = (
            share_of_alarms(test(size.generator(), size.runs, _of(size, shares), rates, ratio))
            for test in (ratio_alarms, naive_alarms)
        )
        yield _line(
            *("rate by ratio", _percent(rate), f"x {ratio:g}", _shares(shares)),
            *(_percent(ours), _percent(naive)),
        )
    for limit in LIMITS:
        trials, rates_now = _of(size, (0.1,)).candidate, np.full(size.looks, limit)
        alarms = limit_alarms(size.generator(), size.runs, trials, rates_now, limit)
        found = _percent(share_of_alarms(alarms))
        yield _line("rate by limit", "", _percent(limit), _shares((0.1,)), found, "")
    for factor, guard, shares in LATENCIES:
        draws = (latencies(0.02, factor), latencies(0.02))
        alarms = latency_alarms(few.generator(), few.runs, _of(few, shares), draws, guard)
        yield _line(
            *(f"p{100 * guard[0]:g} by ratio", "lognormal, sigma 0.5", f"x {guard[1]:g}"),
            *(_shares(shares), _percent(share_of_alarms(alarms)), ""),
        )
    for name, draw, shares in OUTCOMES:
        for test, alarms in _on_outcomes(few, (draw, draw), shares):
            found = _percent(share_of_alarms(alarms))
            yield _line(test, name, "0", _shares(shares), found, "")
    yield ""


def _on_outcomes(
    size: Size, draws: tuple[Draw, Draw], shares: tuple[float, ...]
) -> Iterator[tuple[str, Ints]]:
    of = _of(size, shares)
    yield "mean by margin", mean_alarms(size.generator(), size.runs, of, draws, 0.0)
    yield "verdict (both sides)", difference_alarms(size.generator(), size.runs, of, draws)


def _detection(size: Size) -> Iterator[str]:
    few = size.fewer
    yield "## Candidates that are worse"
    yield ""
    runs, looks = f"{few.runs:,} runs", f"{size.looks:,} looks"
    yield f"{runs} of up to {looks}. Requests until the alarm, from when the"
    yield "candidate got worse: median and 95 % quantile of the runs that had one."
    yield ""
    yield (
        "| candidate | guard | share | found | seconds: median | 95 % "
        "| its requests: median | 95 % |"
    )
    yield "|---|---|---|--:|--:|--:|--:|--:|"
    long = Size(few.runs, size.looks, size.seed)
    share: tuple[float, ...] = (0.1,)
    for rate, fine_s in BROKEN:
        errors = (np.where(np.arange(size.looks) < fine_s, 0.001, rate), np.full(size.looks, 0.001))
        of = _of(long, share)
        alarms = ratio_alarms(long.generator(), long.runs, of, errors, 1.2)
        when = f", after {fine_s} s without" if fine_s else ""
        what = f"{_percent(rate)} errors against 0.1 %{when}"
        yield _found(what, "errors x 1.2", share, of, alarms, fine_s)
    for what, draw, guard in SLOW:
        of, draws = _of(long, share), (draw, latencies(0.02))
        alarms = latency_alarms(long.generator(), long.runs, of, draws, guard)
        yield _found(what, f"p{100 * guard[0]:g} x {guard[1]:g}", share, of, alarms)
    for what, pair, shares in WORSE:
        of = _of(long, shares)
        for test, alarms in _on_outcomes(long, pair, shares):
            yield _found(what, test, shares, of, alarms)


def _found(
    what: str, guard: str, shares: tuple[float, ...], of: Traffic, alarms: Ints, fine_s: int = 0
) -> str:
    in_time = alarms[alarms > fine_s]
    cells = [what, guard, _shares(shares), _percent(len(in_time) / len(alarms))]
    requests = np.cumsum(of.candidate) - of.candidate[:fine_s].sum()
    if not len(in_time):
        return _line(*cells, *[""] * 4)
    times = [int(np.quantile(in_time, q, method="higher")) for q in (0.5, 0.95)]
    cells += [f"{time - fine_s:,}" for time in times]
    return _line(*cells, *(f"{requests[time - 1]:,}" for time in times))


def _of(size: Size, shares: tuple[float, ...]) -> Traffic:
    # Not the chance of the outcomes: those must not hang together with the arrivals.
    return traffic(np.random.default_rng((size.seed, 1)), PER_SECOND, shares, size.looks)


def _percent(share: float) -> str:
    return f"{round(100 * share, 1):g} %"


def _shares(shares: tuple[float, ...]) -> str:
    return ", ".join(f"{100 * share:g}" for share in shares) + " %"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulates, prints the report and, if asked to, writes it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.false_alarms",
        description="False alarms and speed of detection of the sequential tests, by simulation.",
    )
    count: Callable[[str], float] = positive(int)
    parser.add_argument("--runs", type=count, default=1000, help="canaries per line (1000)")
    parser.add_argument("--looks", type=count, default=1000, help="seconds of each (1000)")
    parser.add_argument("--seed", type=int, default=1, help="of all chance (1)")
    parser.add_argument(
        "--output", type=Path, nargs="?", const=REPORT, metavar="FILE",
        help=f"write the report as well (without a FILE: {REPORT})",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    lines = []
    for line in report(Size(options.runs, options.looks, options.seed)):
        print(line, flush=True)
        lines.append(line)
    if options.output:
        options.output.write_text("\n".join([*lines, ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
