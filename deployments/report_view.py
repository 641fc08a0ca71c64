"""The report of `serve-app status` on the screen: tables that fit 100 columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table

from deployments.release_view import rollout_line
from deployments.terminal import WIDTH, out, say

Report = Mapping[str, Any]

_FIGURES = ("req/s", "p50 ms", "p99 ms", "errors")


def show(report: Report) -> None:
    """All models; messages stand below the table."""
    ingress = report["ingress"]
    say(f"{report['http']}   ingress {ingress['replicas']} of {ingress['target']} replicas ready")
    table = _table({"model": 28, "version": 12}, _FIGURES)
    for model in report["models"]:
        for version in model["versions"]:
            table.add_row(model["model"], version["version"], *_row(version), _state(version))
    out.print(table, width=WIDTH)
    for model in report["models"]:
        if model["rollout"] is not None:
            say(f"{model['model']}: {rollout_line(model['rollout'])}")
        _messages(model)


def show_model(model: Report) -> None:
    """One model: its arms side by side, and its rollout."""
    revision = "" if model["revision"] is None else f"   revision {model['revision']}"
    per_s, p50, p99, errors = _rates(model)
    figures = f"{per_s} req/s   p50 {p50} ms   p99 {p99} ms   errors {errors}"
    say(f"{model['model']}   {figures}{revision}")
    table = _table({"version": 28}, (*_FIGURES, "batch"))
    for version in model["versions"]:
        name = " ".join([version["version"], *version["labels"]])
        rows = version["rows_per_batch"]
        batch = "-" if rows is None else f"{rows:.1f}"
        table.add_row(name, *_row(version), batch, _state(version))
    out.print(table, width=WIDTH)
    if model["rollout"] is not None:
        say(rollout_line(model["rollout"]))
        say(f"Evidence: serve-app rollout {model['model']}")
    _messages(model)


def _table(names: Mapping[str, int], figures: Iterable[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, width in names.items():
        table.add_column(name, max_width=width, overflow="ellipsis", no_wrap=True)
    for column in ("traffic", "replicas", *figures):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    return table


def _row(version: Report) -> list[str]:
    low, high = version["replicas_min"], version["replicas_max"]
    return [
        f"{version['traffic_percent']}%",
        f"{version['replicas']} / {low}-{high}",
        *_rates(version),
    ]


def _rates(figures: Report) -> list[str]:
    """Requests per second, p50 and p99 in ms, errors."""
    if not figures["requests_per_s"]:
        return ["0", "-", "-", "-"]
    times = (figures["p50_ms"], figures["p99_ms"])
    return [
        f"{figures['requests_per_s']:,.0f}",
        *("-" if each is None else f"{each:.1f}" for each in times),
        f"{figures['error_ratio']:.2%}",
    ]


def _state(version: Report) -> str:
    if version["idle"]:
        return "idle (0)"
    return "ready" if version["ready"] else str(version["state"]).lower()


def _messages(model: Report) -> None:
    for version in model["versions"]:
        if version["message"]:
            say(f"{model['model']} {version['version']}: {version['message']}")
