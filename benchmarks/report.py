"""What people get: tables on screen, JSON for machines, a plot."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

from benchmarks.cluster import NAME
from benchmarks.musts import Verdict, evaluate

LIBRARIES = ("ray", "torch", "uvicorn", "uvloop", "httptools", "orjson", "numpy")
Results = Mapping[str, Any]


def context() -> dict[str, Any]:
    """Where and when; figures of different machines must not be compared."""
    return {
        "measured": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def merge(path: Path, results: Results) -> dict[str, Any]:
    """The stored results with the scenarios measured now in the place of their former ones."""
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError):
        before = {}
    before = before if isinstance(before, dict) else {}
    return {**before, **{name: {**of, "on": context()} for name, of in results.items()}}


def write_json(path: Path, results: Results) -> None:
    """Writes results and verdicts."""
    merged = merge(path, results)
    merged.pop("musts", None)
    merged["musts"] = [asdict(verdict) for verdict in evaluate(merged)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(merged, indent=2, ensure_ascii=False) + "\n")


def tables(results: Results) -> Iterable[RenderableType]:
    """One table per question that the results answer."""
    if "digits" in results:
        yield _digits_table(results["digits"])
        yield _cpu_table(results["digits"])
    if "minilm" in results:
        yield _minilm_table(results["minilm"])
    if "startup" in results:
        yield _startup_table(results["startup"])


def show(results: Results, verdicts: Iterable[Verdict], console: Console) -> None:
    """Prints all tables, the promises last."""
    for table in tables(results):
        console.print(table, "")
    console.print(_must_table(verdicts))


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _with_spread(figure: Mapping[str, float], digits: int = 0) -> str:
    median, low, high = (f"{figure[key]:,.{digits}f}" for key in ("median", "min", "max"))
    return f"{median} ({low}-{high})"


def _digits_table(result: Any) -> Table:
    table = _table(
        f"{result['model']}: medians (range) of {result['repeats']} runs, "
        f"{result['seconds']:g} s each",
        *("server", "connections", "req/s", "p50 ms", "p99 ms", "CPU µs/req", "errors"),
    )
    for server, by_count in result["servers"].items():
        for count, of in by_count.items():
            table.add_row(
                server,
                count,
                _with_spread(of["requests_per_s"]),
                _with_spread(of["p50_ms"], 2),
                _with_spread(of["p99_ms"], 2),
                _with_spread(of["cpu_us"]),
                f"{of['errors']:,}",
            )
        table.add_section()
    return table


def _cpu_table(result: Any) -> Table:
    counts = list(next(iter(result["servers"].values())))
    table = _table(
        "CPU µs per request, by process",
        *("server", "process"),
        *(f"c={count}" for count in counts),
    )
    table.columns[1].justify = "left"
    for server, by_count in result["servers"].items():
        of = {count: by_count[count]["cpu_us_by_process"] for count in counts}
        roles = {role for figures in of.values() for role in figures}
        for role in sorted(roles, key=lambda name: -_cpu(of[counts[-1]], name)):
            table.add_row(server, role, *(f"{_cpu(of[count], role):,.1f}" for count in counts))
        table.add_row(
            server, "all", *(f"{by_count[count]['cpu_us']['median']:,.1f}" for count in counts),
            style="bold", end_section=True,
        )  # fmt: skip
    return table


def _cpu(figures: Mapping[str, Any], role: str) -> float:
    return float(figures[role]["median"]) if role in figures else 0.0


def _minilm_table(result: Any) -> Table:
    table = _table(
        f"{result['model']}, {result['connections']} connections, batches of up to "
        f"{result['max_rows']}: medians (range) of {result['repeats']} runs",
        *("lengths", "computed", "sentences/s", "p50 ms", "p99 ms", "errors", "ratio"),
    )
    table.columns[1].justify = "left"
    for lengths, of in result["lengths"].items():
        for mode, figures in of["modes"].items():
            table.add_row(
                lengths,
                {"grouped": "in groups of 8", "arrival": "as they arrive"}[mode],
                _with_spread(figures["requests_per_s"], 1),
                _with_spread(figures["p50_ms"]),
                _with_spread(figures["p99_ms"]),
                f"{figures['errors']:,}",
                f"{of['ratio']:.2f}x" if mode == "grouped" else "",
            )
    return table


def _startup_table(result: Any) -> Table:
    table = _table("`serve-app up`, default config", "home", "first answer after, s")
    names = {"first": "empty (trains the example models)", "again": "kept"}
    for start, figure in result["first_answer_s"].items():
        table.add_row(names[start], _with_spread(figure, 1))
    return table


def _must_table(verdicts: Iterable[Verdict]) -> Table:
    table = _table("Musts", "promise", "target", "measured", "errors", "")
    table.columns[0].no_wrap = False
    for verdict in verdicts:
        table.add_row(
            verdict.text,
            f"{verdict.target} {verdict.unit}",
            f"{verdict.measured:,.2f} {verdict.unit}",
            str(verdict.errors),
            "[green]pass[/]" if verdict.passed else "[bold red]FAIL[/]",
        )
    return table


def plot(results: Results, path: Path) -> bool:
    """Draws throughput, latency and CPU of the digits scenario; False if it was not measured."""
    if "digits" not in results:
        return False
    from matplotlib.figure import Figure

    servers = results["digits"]["servers"]
    figure = Figure(figsize=(13, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for name, by_count in servers.items():
        counts = [int(count) for count in by_count]
        style: dict[str, Any] = {"marker": "o", "label": name, "lw": 2.5 if name == NAME else 1.2}
        for axis, key in ((left, "requests_per_s"), (middle, "p50_ms")):
            axis.plot(counts, [of[key]["median"] for of in by_count.values()], **style)
    for axis, title in ((left, "requests/s"), (middle, "median latency, ms")):
        axis.set(title=title, xlabel="connections", xscale="log", yscale="log")
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    left.legend(fontsize=8)
    most = str(max(counts))
    parts = servers[NAME][most]["cpu_us_by_process"]
    shown = sorted(
        ((role, of["median"]) for role, of in parts.items() if of["median"] >= 0.5),
        key=lambda part: part[1],
    )
    bars = right.barh([role for role, _ in shown], [cost for _, cost in shown])
    right.bar_label(bars, fmt="%.0f", padding=3)
    right.set(title=f"{NAME}: CPU µs per request at {most} connections")
    figure.savefig(path, metadata={"Date": None})
    return True
