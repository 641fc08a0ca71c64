"""The digits network behind other model servers: `python -m benchmarks.run_peers`.

Installs each peer, tries out its setups and keeps the best, then measures all of them, the cluster
and one bare uvicorn process in turns.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import digits, wrk
from benchmarks.arguments import positive
from benchmarks.cluster import NAME, cluster, prepare_models
from benchmarks.comparison import Comparison, Start, rotated
from benchmarks.errors import BenchmarkError
from benchmarks.measure import sample, warm_up
from benchmarks.peers import environments, report
from benchmarks.peers.peer import OIP, PEERS, Api, Peer, Row, Setup
from benchmarks.peers.serving import check, expected, serving
from benchmarks.run_digits import BARE, OVERRIDES
from benchmarks.running import baseline
from benchmarks.settings import Settings

CONNECTIONS = (1, 16, 64)
TRIAL_S = 2.0
"""Of load per number of connections, to find out which setup of a peer is best."""

EPILOG = """
examples:
  python -m benchmarks.run_peers
  python -m benchmarks.run_peers --peers litserve,bentoml --repeats 1
  python -m benchmarks.run_peers --seconds 10 --repeats 5 --connections 1,16,64,256
  make bench-peers ARGS="--seconds 3 --repeats 1"

A peer that cannot be installed, started or measured is reported with the reason, does not stop the
others, and makes the command end with 1.
"""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server that is ready to be measured."""

    start: Start
    api: Api
    facts: dict[str, Any] = field(default_factory=dict)
    """What the report says about it."""


class Bench:
    """One run: everything that its steps share."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        """Trains the model that all serve, and computes what all must answer."""
        self.settings, self._folder = settings, folder
        self._home = folder / "home"
        self._weights = prepare_models(self._home)
        self._rows: list[Row] = digits.images().tolist()
        self._expected = expected(self._weights, self._rows)
        self.failed: dict[str, str] = {}
        """Reason by name of the server."""

    def ours(self) -> dict[str, Contestant]:
        """The cluster, and the bare process that everything is held against."""
        probe = OIP.body(self._rows[0])
        return {
            NAME: Contestant(lambda: cluster(OVERRIDES, self._home, OIP.path, probe), OIP),
            BARE: Contestant(
                lambda: baseline(BARE, "bare_uvicorn", self._weights, self._folder, probe), OIP
            ),
        }

    def peers(self, peers: Sequence[Peer]) -> dict[str, Contestant]:
        """Installs them and chooses a setup for each; one that fails is left out."""
        ready = {}
        for peer in peers:
            try:
                ready[peer.name] = self._prepare(peer)
            except BenchmarkError as error:
                self._fail(peer.name, error)
        return ready

    def _prepare(self, peer: Peer) -> Contestant:
        python = environments.prepare(peer.folder, self.settings.tell)
        setup, trials = self._best(peer, python)
        facts = {
            "version": environments.version(python, peer.package),
            "setup": setup.name,
            "trials": trials,
        }
        return Contestant(self._serve(peer, setup, python), peer.api, facts)

    def _serve(self, peer: Peer, setup: Setup, python: Path) -> Start:
        probe = peer.api.body(self._rows[0])
        return lambda: serving(peer, setup, python, self._weights, probe)

    def _best(self, peer: Peer, python: Path) -> tuple[Setup, dict[str, Any]]:
        """The setup with the most requests/s (geometric mean over the numbers of connections).

        Raises:
            BenchmarkError: it runs with none of them.
        """
        if len(peer.setups) == 1:
            return peer.setups[0], {}
        scores: dict[str, float] = {}
        trials: dict[str, Any] = {}
        for setup in peer.setups:
            self.settings.tell(f"{peer.name}: trying {setup.name}")
            contestant = Contestant(self._serve(peer, setup, python), peer.api)
            try:
                rates = {
                    str(count): round(one.requests_per_s, 1)
                    for count, one in self.measure(peer.name, contestant, TRIAL_S).items()
                }
            except BenchmarkError as error:
                trials[setup.name] = str(error)
            else:
                trials[setup.name] = rates
                scores[setup.name] = statistics.geometric_mean(rates.values())
        if not scores:
            raise BenchmarkError("\n".join(f"{name}: {why}" for name, why in trials.items()))
        best = max(scores, key=lambda name: scores[name])
        return next(setup for setup in peer.setups if setup.name == best), trials

    def measure(self, name: str, contestant: Contestant, seconds: float) -> dict[int, Any]:
        """Starts a server, checks its answers, and measures it with each number of connections."""
        api = contestant.api
        bodies = [api.body(row) for row in self._rows]
        with contestant.start() as server:
            check(name, server.url, api, self._rows, self._expected)
            warm_up(server, api.path, bodies)
            return {
                count: sample(server, api.path, bodies, count, seconds)
                for count in self.settings.connections
            }

    def compare(self, contestants: Mapping[str, Contestant]) -> dict[str, Any]:
        """Measures all in turns; one that fails is not started again."""
        comparison = Comparison("peers", "connections", self.settings)
        for repeat in range(self.settings.repeats):
            for name in rotated(list(contestants), repeat):
                if name in self.failed:
                    continue
                self.settings.tell(f"peers, repeat {repeat + 1} of {self.settings.repeats}: {name}")
                try:
                    samples = self.measure(name, contestants[name], self.settings.seconds)
                except BenchmarkError as error:
                    self._fail(name, error)
                    continue
                for count, one in samples.items():
                    comparison.add(name, count, one)
        return comparison.result(
            model="digits version 2, one row of 64 numbers, JSON",
            setups={name: one.facts for name, one in contestants.items() if one.facts},
            failed=self.failed,
        )

    def _fail(self, name: str, error: BenchmarkError) -> None:
        self.failed[name] = str(error)
        self.settings.tell(f"{name} FAILED: {error}")


def run(settings: Settings, peers: Sequence[Peer]) -> dict[str, Any]:
    """Measures these peers and ours; servers that failed are listed with the reason."""
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as folder:
        bench = Bench(settings, Path(folder))
        return bench.compare({**bench.ours(), **bench.peers(peers)})


def main(arguments: Sequence[str] | None = None) -> int:
    """0 all were measured, 1 one of them could not be, 2 wrong usage."""
    options = _parse(arguments)
    console = Console(highlight=False, markup=False)
    settings = Settings(
        options.seconds, options.repeats, console.print, connections=options.connections
    )
    try:
        wrk.program()  # says what is missing before anything is installed
        result = run(settings, options.peers)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    picture = options.output.with_suffix(".svg")
    report.write_json(options.output, result)
    drawn = report.plot(result, picture)
    # In less the table would lose columns without a word.
    report.show(result, Console(highlight=False, width=max(console.width, 100)))
    console.print(f"\nWritten: {options.output}" + (f", {picture}" if drawn else ""))
    return 1 if result["failed"] else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run_peers",
        description="Measures other model servers with the same model, in environments of their "
        "own, beside the product. Leave the machine alone meanwhile.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--peers", type=_peers, default=tuple(PEERS.values()), metavar="NAME,...",
        help=f"which of {', '.join(PEERS)} (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=positive(float), default=6.0, help="of each measurement (default: 6)"
    )
    parser.add_argument(
        "--repeats", type=positive(int), default=3, help="of each measurement (default: 3)"
    )
    parser.add_argument(
        "--connections", type=_connections, default=CONNECTIONS, metavar="N,...",
        help=f"default: {','.join(map(str, CONNECTIONS))}",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, default=Path("docs/reports/bench-peers.json"),
        help="JSON file, the plot beside it (default: %(default)s)",
    )  # fmt: skip
    return parser.parse_args(arguments)


def _peers(text: str) -> tuple[Peer, ...]:
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such peer: {', '.join(unknown)}")
    return tuple(PEERS[name] for name in dict.fromkeys(names))


def _connections(text: str) -> tuple[int, ...]:
    number = positive(int)
    return tuple(sorted({int(number(part)) for part in text.split(",")}))


if __name__ == "__main__":
    # As with Ctrl-C, whatever runs is stopped first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
