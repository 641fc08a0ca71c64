"""What people get on screen: a table per question, the promises last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

from benchmarks.musts import Verdict
from benchmarks.regression import Change

Results = Mapping[str, Any]


def show(results: Results, verdicts: Iterable[Verdict], console: Console) -> None:
    """Prints all tables, the promises last."""
    for table in tables(results):
        console.print(table, "")
    console.print(_must_table(verdicts))


def show_changes(changes: Iterable[Change], tolerance: float, console: Console) -> None:
    """Prints how the ratios have changed."""
    table = _table(
        f"Ratios to the reference of the same run: up to {tolerance:.0%} worse is fine",
        *("ratio", "at", "of", "then", "now", "change", ""),
    )
    for change in changes:
        table.add_row(
            change.text,
            change.point,
            {"requests_per_s": "throughput", "cpu_us": "CPU"}[change.figure],
            f"{change.then:.3f}",
            f"{change.now:.3f}",
            f"{change.relative:+.1%}",
            "[bold red]WORSE[/]" if change.regressed else "[green]fine[/]",
        )
    console.print("", table)


def tables(results: Results) -> Iterable[RenderableType]:
    """The tables of all scenarios that the results hold."""
    for name, result in results.items():
        if "servers" in result:
            yield _comparison_table(name, result)
            yield _process_table(result, "cpu_us_by_process", "CPU µs per request, by process")
            yield _process_table(result, "rss_mib_by_process", "Resident memory in MiB, by process")
    if "steady" in results:
        yield _steady_table(results["steady"])
        yield _memory_table(results["steady"])
    if "startup" in results:
        yield _startup_table(results["startup"])
    if "routing" in results:
        yield _routing_table(results["routing"])
    if "scaling" in results:
        yield _scaling_table(results["scaling"])
    if "split" in results:
        yield _batch_table(results["split"])
    if "neighbours" in results:
        yield _neighbours_table(results["neighbours"])
    if "rollback" in results:
        yield _rollback_table(results["rollback"])


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _with_spread(figure: Mapping[str, float] | None, digits: int = 0) -> str:
    if figure is None:
        return ""
    median, low, high = (f"{figure[key]:,.{digits}f}" for key in ("median", "min", "max"))
    return f"{median} ({low}-{high})"


def _comparison_table(name: str, result: Any) -> Table:
    table = _table(
        f"{name}: {result['model']}. Medians (range) of {result['repeats']} runs, "
        f"{result['seconds']:g} s each",
        *("server", result["axis"], "per s", "p50 ms", "p90 ms", "p99 ms", "CPU µs", "errors"),
    )
    for server, by_point in result["servers"].items():
        for point, of in by_point.items():
            table.add_row(
                server,
                f"{int(point):,}" if point.isdigit() else point,
                _with_spread(of["requests_per_s"], 0 if of["requests_per_s"]["min"] > 200 else 1),
                _with_spread(of.get("p50_ms"), 2),
                *(f"{of[key]['median']:,.2f}" if key in of else "" for key in ("p90_ms", "p99_ms")),
                _with_spread(of["cpu_us"]),
                f"{of['errors']:,}",
            )
        table.add_section()
    return table


def _process_table(result: Any, figure: str, title: str) -> Table:
    points = list(dict.fromkeys(point for of in result["servers"].values() for point in of))
    table = _table(f"{title}; columns: {result['axis']}", *("server", "process"), *points)
    table.columns[1].justify = "left"
    for server, by_point in result["servers"].items():
        of = {point: by_point[point][figure] for point in points if point in by_point}
        last = of[list(of)[-1]]
        for role in sorted(last, key=lambda name: -last[name]["median"]):
            cells = (of[point].get(role) if point in of else None for point in points)
            table.add_row(
                server, role, *("" if c is None else f"{c['median']:,.1f}" for c in cells)
            )
        table.add_section()
    return table


def _steady_table(result: Any) -> Table:
    table = _table(
        f"steady: {result['minutes']:g} minutes of an open loop at {result['share']:.0%} of "
        f"{result['capacity_per_s']:,.0f} requests/s, which had a median of "
        f"{result['capacity_p50_ms']:.2f} ms",
        *("requests", "p50 ms", "p90 ms", "p99 ms", "longest ms", "sent late ms (p99)", "errors"),
    )
    keys = ("p50_ms", "p90_ms", "p99_ms", "max_ms", "sent_late_p99_ms")
    table.add_row(
        f"{result['requests']:,}", *(f"{result[key]:.2f}" for key in keys), f"{result['errors']:,}"
    )
    return table


def _memory_table(result: Any) -> Table:
    table = _table("steady: memory in MiB", "process", "after warm-up", "at the end")
    for role, of in result["memory"].items():
        table.add_row(role, f"{of['after_warm_up_mib']:,.1f}", f"{of['end_mib']:,.1f}")
    return table


def _startup_table(result: Any) -> Table:
    table = _table("startup: `serve-app up`, default config", "home", "first answer after, s")
    names = {"first": "empty (trains the example models)", "again": "kept"}
    for start, figure in result["first_answer_s"].items():
        table.add_row(names[start], _with_spread(figure, 1))
    return table


def _routing_table(result: Any) -> Table:
    table = _table(
        f"routing: {result['models']:,} models of {result['versions']} versions", "what", "CPU"
    )
    for text, figure, unit, factor in (
        ("choosing a version, sticky by header", "choose_us", "µs", 1),
        ("counting a request of an arm", "count_us", "µs", 1),
        ("router: the first table, compiled and serialised", "publish_s", "ms", 1000),
        ("router: the same after a change of one replica", "publish_change_s", "ms", 1000),
        ("ingress: taking the first table", "take_s", "ms", 1000),
        ("ingress: taking the change", "take_change_s", "ms", 1000),
    ):
        found = {name: factor * value for name, value in result[figure].items()}
        table.add_row(text, f"{_with_spread(found, 2 if unit == 'µs' else 1)} {unit}")
    return table


def _scaling_table(result: Any) -> Table:
    table = _table(
        f"scaling: {result['config']}; a load takes {result['load_s']:g} s",
        *("what happens", "first answer after, s"),
    )
    names = {
        "second_replica": f"load grows {result['step']:g}-fold: second replica",
        "wake": "request to a version that sleeps",
    }
    for event, figure in result["seconds"].items():
        table.add_row(names[event], _with_spread(figure, 1))
    return table


def _batch_table(result: Any) -> Table:
    table = _table("split: rows per batch", "way", "connections", "version", "rows")
    for way, by_point in result["batch_rows"].items():
        for point, by_version in by_point.items():
            for version, figure in by_version.items():
                table.add_row(way, point, version, _with_spread(figure, 1))
    return table


def _neighbours_table(result: Any) -> Table:
    table = _table(
        f"neighbours: {result['model']}",
        *("meanwhile", "takes s", "p50 ms", "p99 ms", "longest ms", "sent late ms (p99)"),
    )
    for event, of in result["events"].items():
        figures = (of[key] for key in ("p50_ms", "p99_ms", "max_ms", "sent_late_p99_ms"))
        table.add_row(event, _with_spread(of["s"], 1), *(_with_spread(each, 2) for each in figures))
    return table


def _rollback_table(result: Any) -> Table:
    table = _table(
        f"rollback: a canary that turns bad at {result['rate_per_s']:g} requests/s",
        *("first step", "first failure to last request, s", "failed, all runs"),
    )
    for step, figure in result["seconds"].items():
        table.add_row(f"{step} %", _with_spread(figure, 1), f"{result['failed'][step]:,}")
    return table


def _must_table(verdicts: Iterable[Verdict]) -> Table:
    table = _table("Musts", "promise", "target", "measured", "errors", "")
    table.columns[0].no_wrap = False
    outcome = {True: "[green]pass[/]", False: "[bold red]FAIL[/]", None: "not measured"}
    for verdict in verdicts:
        table.add_row(
            verdict.text,
            f"{verdict.target} {verdict.unit}",
            "" if verdict.measured is None else f"{verdict.measured:,.2f} {verdict.unit}",
            str(verdict.errors),
            outcome[verdict.passed],
        )
    return table
