"""The command line: ``python -m benchmarks``, which `make bench` runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import ingress_profile, report, run_digits, run_minilm, run_startup, run_users, wrk
from benchmarks.errors import BenchmarkError
from benchmarks.musts import evaluate
from benchmarks.settings import Settings

MEASURED: dict[str, Callable[[Settings], dict[str, Any]]] = {
    "digits": run_digits.run,
    "minilm": run_minilm.run,
    "startup": run_startup.run,
}
NEED_WRK = ("all", "digits", "minilm", "profile")
SCENARIOS = ("all", *MEASURED, "users", "profile")

EPILOG = """
scenarios:
  digits    the cluster, Ray Serve's defaults and one bare uvicorn process, in turns
  minilm    sentence embeddings in groups of similar length, against order of arrival
  startup   from `serve-app up` to the first answer
  all       the three above, one after the other
  users     people with different wishes (Locust), every answer checked
  profile   where the microseconds of the ingress go (py-spy)

examples:
  python -m benchmarks
  python -m benchmarks digits --seconds 10 --repeats 5
  python -m benchmarks minilm --output minilm.json
  python -m benchmarks startup --repeats 1
  python -m benchmarks users --users 50 --seconds 60
  python -m benchmarks users --host http://127.0.0.1:8000
  python -m benchmarks profile --seconds 20
  make bench ARGS="digits --repeats 1"
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a scenario; 0 done, 1 it could not be measured (with --check: or a must failed)."""
    options = _parse(arguments)
    console = Console(highlight=False)
    settings = Settings(options.seconds or 6.0, options.repeats, console.print)
    try:
        if options.scenario in NEED_WRK:
            wrk.program()  # says what is missing before anything has started
        if options.scenario == "users":
            return run_users.run(options.host, options.users, options.seconds or 20.0)
        if options.scenario == "profile":
            ingress_profile.run(options.output.parent, options.seconds or 15.0, settings.tell)
            return 0
        chosen = tuple(MEASURED) if options.scenario == "all" else (options.scenario,)
        return _measure(chosen, settings, options.output, options.check, console)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


def _measure(
    scenarios: Sequence[str], settings: Settings, output: Path, check: bool, console: Console
) -> int:
    results: dict[str, Any] = {}
    for name in scenarios:
        results[name] = MEASURED[name](settings)
        # After each scenario, so that a later one that fails loses nothing.
        report.write_json(output, {name: results[name]})
    picture = output.with_suffix(".svg")
    drawn = report.plot(results, picture)
    verdicts = evaluate(results)
    report.show(results, verdicts, console)
    console.print(f"\nWritten: {output}" + (f", {picture}" if drawn else ""))
    return int(check and not all(verdict.passed for verdict in verdicts))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures the product on this machine. Leave the machine alone meanwhile.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "scenario", nargs="?", choices=SCENARIOS, default="all", metavar="SCENARIO",
        help="all (default), digits, minilm, startup, users or profile",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=_positive(float),
        help="of each measurement (default: 6; users: 20; profile: 15)",
    )  # fmt: skip
    parser.add_argument(
        "--repeats", type=_positive(int), default=3, help="of each measurement (default: 3)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("docs/reports/bench-foundation.json"),
        help="JSON file, the plot beside it; scenarios not run now keep their former results "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--check", action="store_true", help="exit with 1 when a must fails")
    parser.add_argument("--users", type=_positive(int), default=20, help="users: how many (20)")
    parser.add_argument("--host", help="users: a server that runs already, such as http://...:8000")
    return parser.parse_args(arguments)


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError("must be above 0")
        return value

    return number


if __name__ == "__main__":
    sys.exit(main())
