"""The picture: throughput and latency against concurrency, and where the CPU time goes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.cluster import NAME

Results = Mapping[str, Any]
SMALLEST_US = 0.5
"""Of CPU per request that gets a colour of its own."""


def plot(results: Results, path: Path) -> bool:
    """Draws the digits scenario, and the protocols if there are any; False without digits."""
    if "digits" not in results:
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8.5), layout="constrained")
    (throughput, latency), (protocols, cpu) = figure.subplots(2, 2)
    servers = results["digits"]["servers"]
    _lines(throughput, servers, "requests_per_s", "digits: requests/s")
    _lines(latency, servers, "p50_ms", "digits: median latency (dashed: p99), ms")
    for line in list(latency.get_lines()):
        by_point = servers[line.get_label()]
        tails = [of["p99_ms"]["median"] for of in by_point.values()]
        latency.plot([int(p) for p in by_point], tails, color=line.get_color(), ls="--", lw=1)
    if "protocols" in results:
        title = "one model by protocol: requests/s"
        _lines(protocols, results["protocols"]["servers"], "requests_per_s", title)
    else:
        protocols.set_axis_off()
    _processes(cpu, servers)
    figure.savefig(path, metadata={"Date": None})
    return True


def _lines(axis: Any, servers: Mapping[str, Any], key: str, title: str) -> None:
    """One line per server over the number of connections, with the spread of the repeats."""
    for name, by_point in servers.items():
        points = [int(point) for point in by_point]
        figures = [of[key] for of in by_point.values()]
        width = 2.5 if name.startswith(NAME) else 1.2
        axis.plot(points, [of["median"] for of in figures], marker="o", label=name, lw=width)
        axis.fill_between(
            points, [of["min"] for of in figures], [of["max"] for of in figures], alpha=0.15
        )
    ticks = sorted({int(point) for by_point in servers.values() for point in by_point})
    axis.set(title=title, xlabel="connections", xscale="log", yscale="log")
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def _processes(axis: Any, servers: Mapping[str, Any]) -> None:
    """One bar per number of connections, of our processes; the others' are too far away."""
    by_point = {point: of["cpu_us_by_process"] for point, of in servers[NAME].items()}
    # With few requests per second most of it is what Ray does anyway, whoever asks.
    shown = {point: of for point, of in by_point.items() if int(point) >= 4} or by_point
    roles = {role for of in shown.values() for role in of}
    last = shown[list(shown)[-1]]
    ordered = sorted(roles, key=lambda role: -last.get(role, {"median": 0.0})["median"])
    left = dict.fromkeys(shown, 0.0)
    for role in ordered:
        costs = {point: of[role]["median"] if role in of else 0.0 for point, of in shown.items()}
        if max(costs.values()) < SMALLEST_US:
            continue
        axis.barh(list(shown), [costs[p] for p in shown], left=[left[p] for p in shown], label=role)
        left = {point: left[point] + costs[point] for point in shown}
    for position, total in enumerate(left.values()):
        axis.text(total, position, f" {total:.0f}", va="center")
    axis.margins(x=0.1)
    axis.set(title=f"{NAME}: CPU µs per request by process", ylabel="connections")
    axis.legend(fontsize=8)
