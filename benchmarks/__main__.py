"""The command line: ``python -m benchmarks``, which `make bench` runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import (
    ingress_profile,
    plots,
    regression,
    report,
    run_digits,
    run_large,
    run_minilm,
    run_neighbours,
    run_protocols,
    run_rollback,
    run_routing,
    run_scaling,
    run_split,
    run_startup,
    run_steady,
    run_users,
    run_variants,
    store,
    wrk,
)
from benchmarks.arguments import positive
from benchmarks.errors import BenchmarkError
from benchmarks.musts import evaluate
from benchmarks.settings import Settings

Scenario = Callable[[Settings], dict[str, Any]]
ALL: dict[str, Scenario] = {
    "digits": run_digits.run,
    "protocols": run_protocols.run,
    "large": run_large.run,
    "minilm": run_minilm.run,
    "steady": run_steady.run,
    "startup": run_startup.run,
    "routing": run_routing.run,
    "scaling": run_scaling.run,
    "split": run_split.run,
    "neighbours": run_neighbours.run,
    "rollback": run_rollback.run,
}
BY_NAME: dict[str, Scenario] = {
    "ingresses": run_variants.ingresses,
    "transports": run_variants.transports,
}
WITHOUT_WRK = ("startup", "routing", "scaling", "rollback", "users")
SCENARIOS = ("all", *ALL, *BY_NAME, "users", "profile")

STORED = Path("docs/reports/bench.json")
COMPARED = Path("var/bench.json")
"""Where a run goes that is compared, so that it does not become its own baseline."""

WIDTH = 140
"""That the tables need; in a narrower terminal lines wrap, but nothing is left out."""

EPILOG = """
scenarios:
  digits      the cluster, Ray Serve's defaults and one bare uvicorn process, in turns
  protocols   OIP JSON, OIP binary and gRPC, beside a bare uvicorn and a bare grpc.aio server
  large       bodies of 0.6 to 33 MB, beside a server that only reads them
  minilm      sentence embeddings, beside plain torch with all sentences sorted by length
  steady      minutes of an open loop at 80% of the capacity: memory and stalls
  startup     from `serve-app up` to the first answer
  routing     releases of 10,000 models: choosing a version, publishing the route table
  scaling     a step of load: until a second replica answers; one that sleeps: until it does
  split       traffic over two versions against one that is pinned
  neighbours  a model under load while another one is loaded, or replaced
  rollback    a canary that turns bad: until it has no traffic
  all         the eleven above, one after the other
  ingresses   1, 2 and 3 ingress replicas
  transports  the direct channel against handle calls
  users       people with different wishes (Locust), every answer checked
  profile     where the microseconds of the ingress go (py-spy)

examples:
  python -m benchmarks
  python -m benchmarks digits --seconds 10 --repeats 5
  python -m benchmarks digits --connections 1,64 --output digits.json
  python -m benchmarks digits protocols --compare
  python -m benchmarks steady --minutes 30
  python -m benchmarks users --users 50 --seconds 60 --spikes
  python -m benchmarks users --host http://127.0.0.1:8000
  python -m benchmarks profile --seconds 20
  make bench ARGS="startup --repeats 1"
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs scenarios.

    Returns:
        0 done; 1 it could not be measured, a must failed (--check), a ratio got worse (--compare).
    """
    options = _parse(arguments)
    console = Console(highlight=False, width=max(WIDTH, Console().width))
    settings = Settings(
        options.seconds or 6.0, options.repeats, console.print, options.connections, options.minutes
    )
    scenarios: list[str] = options.scenario or ["all"]
    try:
        if not set(scenarios) <= set(WITHOUT_WRK):
            wrk.program()  # says what is missing before anything has started
        if scenarios == ["users"]:
            return run_users.run(
                options.host, options.users, options.seconds or 20.0, options.spikes
            )
        if scenarios == ["profile"]:
            ingress_profile.run(STORED.parent, options.seconds or 15.0, settings.tell)
            return 0
        return _measure(scenarios, settings, options, console)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


def _measure(
    scenarios: Sequence[str], settings: Settings, options: argparse.Namespace, console: Console
) -> int:
    # Read first: it may be the file that is written below.
    baseline = regression.load(options.compare) if options.compare else None
    output: Path = options.output or (COMPARED if options.compare else STORED)
    chosen = list(ALL) if "all" in scenarios else list(dict.fromkeys(scenarios))
    results: dict[str, Any] = {}
    stored: dict[str, Any] = {}
    for name in chosen:
        results[name] = (ALL | BY_NAME)[name](settings)
        # After each scenario, so that a later one that fails loses nothing.
        stored = store.write_json(output, {name: results[name]})
    picture = output.with_suffix(".svg")
    drawn = plots.plot(stored, picture)
    verdicts = evaluate(results)
    report.show(results, verdicts, console)
    console.print(f"\nWritten: {output}" + (f", {picture}" if drawn else ""))
    failed = options.check and any(verdict.passed is False for verdict in verdicts)
    if baseline is not None:
        changes = regression.compare(results, baseline, options.tolerance)
        report.show_changes(changes, options.tolerance, console)
        failed = failed or any(change.regressed for change in changes)
    return int(failed)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures the product on this machine. Leave the machine alone meanwhile.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "scenario", nargs="*", type=_scenario, metavar="SCENARIO",
        help="one or more of those below (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=positive(float),
        help="of each measurement (default: 6; users: 20; profile: 15)",
    )  # fmt: skip
    parser.add_argument(
        "--repeats", type=positive(int), default=3, help="of each measurement (default: 3)"
    )
    parser.add_argument(
        "--connections", type=_counts, default=(), metavar="N,N",
        help="instead of those that a scenario chooses, such as 1,64 (large, minilm: the first)",
    )  # fmt: skip
    parser.add_argument("--minutes", type=positive(float), default=5.0, help="steady: how long (5)")
    parser.add_argument(
        "--output", type=Path,
        help=f"JSON file, the plot beside it; scenarios not run now keep their former results "
        f"(default: {STORED}; with --compare: {COMPARED})",
    )  # fmt: skip
    parser.add_argument("--check", action="store_true", help="exit with 1 when a must fails")
    parser.add_argument(
        "--compare", type=Path, nargs="?", const=STORED, metavar="FILE",
        help=f"exit with 1 when a ratio to the reference of the same run is worse than in this "
        f"file (default: {STORED})",
    )  # fmt: skip
    parser.add_argument(
        "--tolerance", type=positive(float), default=regression.TOLERANCE,
        help=f"--compare: by how much a ratio may be worse ({regression.TOLERANCE})",
    )  # fmt: skip
    parser.add_argument("--users", type=positive(int), default=20, help="users: how many (20)")
    parser.add_argument("--spikes", action="store_true", help="users: four times as many at times")
    parser.add_argument("--host", help="users: a server that runs already, such as http://...:8000")
    options = parser.parse_args(arguments)
    alone = {"users", "profile"} & set(options.scenario)
    if alone and len(options.scenario) > 1:
        parser.error(f"{alone.pop()} stands alone")
    return options


def _scenario(text: str) -> str:
    if text not in SCENARIOS:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(SCENARIOS)}")
    return text


def _counts(text: str) -> tuple[int, ...]:
    count = positive(int)
    try:
        return tuple(int(count(part)) for part in text.split(","))
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{text!r} is no list such as 1,16,64") from exc


if __name__ == "__main__":
    sys.exit(main())
