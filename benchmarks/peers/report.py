"""The comparison with other servers: a table, JSON, a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.cluster import NAME
from benchmarks.store import context

Result = Mapping[str, Any]


def write_json(path: Path, result: Result) -> None:
    """Writes everything that was measured, and where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"peers": {**result, "on": context()}}
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def show(result: Result, console: Console) -> None:
    """Prints the table, what was chosen for whom, and who failed."""
    console.print(_table(result), "")
    for name, of in result["setups"].items():
        console.print(escape(f"{name} {of['version']}: {of['setup']}"))
    for name, reason in result["failed"].items():
        console.print(f"[bold red]{name} failed:[/] {escape(reason)}")


def _table(result: Result) -> Table:
    table = Table(
        title=f"{result['model']}: medians (range) of {result['repeats']} runs, "
        f"{result['seconds']:g} s each; ours: our req/s as a multiple",
        title_justify="left", box=None, pad_edge=False, header_style="bold",
    )  # fmt: skip
    table.add_column("server", no_wrap=True)
    for column in ("conn.", "req/s", "p50 ms", "p99 ms", "CPU µs/req", "errors", "ours"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, by_count in result["servers"].items():
        for count, of in by_count.items():
            table.add_row(
                name,
                count,
                _with_spread(of["requests_per_s"]),
                _median(of["p50_ms"], 2),
                _median(of["p99_ms"], 2),
                _median(of["cpu_us"]),
                f"{of['errors']:,}",
                _times(result, name, count),
            )
        table.add_section()
    return table


def _with_spread(figure: Mapping[str, float]) -> str:
    return f"{_median(figure)} ({figure['min']:,.0f}-{figure['max']:,.0f})"


def _median(figure: Mapping[str, float], digits: int = 0) -> str:
    return f"{figure['median']:,.{digits}f}"


def _times(result: Result, name: str, count: str) -> str:
    """Our requests/s as a multiple of this server's."""
    ours = result["servers"].get(NAME, {}).get(count)
    if ours is None or name == NAME:
        return ""
    theirs = result["servers"][name][count]
    return f"{ours['requests_per_s']['median'] / theirs['requests_per_s']['median']:.1f}x"


def plot(result: Result, path: Path) -> bool:
    """Draws throughput, latency and CPU per request; False if nothing was measured."""
    servers = result["servers"]
    if not servers:
        return False
    from matplotlib.figure import Figure

    counts = sorted({int(count) for by_count in servers.values() for count in by_count})
    figure = Figure(figsize=(13, 4.5), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for name, by_count in servers.items():
        style: dict[str, Any] = {"marker": "o", "label": name, "lw": 2.5 if name == NAME else 1.2}
        for axis, key in ((left, "requests_per_s"), (middle, "p50_ms")):
            axis.plot(
                [int(count) for count in by_count],
                [of[key]["median"] for of in by_count.values()],
                **style,
            )
    for axis, title in ((left, "requests/s"), (middle, "median latency, ms")):
        axis.set(title=title, xlabel="connections", xscale="log", yscale="log")
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    left.legend(fontsize=8)
    most = str(counts[-1])
    costs = {name: of[most]["cpu_us"]["median"] for name, of in servers.items()}
    order = sorted(costs, key=lambda name: -costs[name])
    bars = right.barh(order, [costs[name] for name in order])
    right.bar_label(bars, fmt="{:,.0f}", padding=3)
    right.set(title=f"CPU µs per request at {most} connections")
    right.margins(x=0.15)
    figure.savefig(path, metadata={"Date": None})
    return True
