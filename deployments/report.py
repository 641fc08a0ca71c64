"""`serve-app status`: one report, for people as a table and for machines as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from deployments.live import document, listener_url, live
from deployments.naming import GATEWAY, INGRESS
from deployments.rates import Key, Rates, measure
from deployments.standings import Standings, standings
from deployments.status import deployment_state, states, version_state
from deployments.target import running_target
from deployments.terminal import WIDTH, out, say
from serve_app.config.model import ModelConfig
from serve_app.config.root import Config
from serve_app.domain.inference import VersionKey
from serve_app.errors import ClusterError

Report = dict[str, Any]


def collect(config: Config, home: Path) -> Report:
    """Joins Serve's account of the replicas with two seconds of metrics and the live releases.

    Models, weights and addresses are those that run, whatever the files say by now. Without an
    answer of ModelRouter the weights are those that were applied.

    Raises:
        ClusterError: no cluster runs, it does not answer, or nothing is deployed on it.
    """
    target = running_target(config, home)
    with target.api() as api:
        details = api.details()
    running = live(details)
    if running is None:
        raise ClusterError("Nothing is deployed. Deploy with: serve-app up")
    http, metrics = running.arguments.http, running.arguments.metrics
    url = listener_url(metrics.host, metrics.port, target.dashboard)
    rates = measure(url) if metrics.enabled else {}
    ingress = deployment_state(details, GATEWAY, INGRESS)
    now = standings(document(details), target.dashboard) or {}
    models = [_model(name, model, details, rates, now) for name, model in running.models.items()]
    return {
        "ready": all(state.ready for _, state in states(details, running.models)),
        "http": listener_url(http.host, http.port, target.dashboard),
        "ingress": {"replicas": ingress.running, "target": ingress.target, "state": ingress.state},
        "models": models,
    }


def _model(
    name: str,
    model: ModelConfig,
    details: dict[str, Any],
    rates: Mapping[Key, Rates],
    now: Standings,
) -> Report:
    live, rollout = now.get(name), None
    if live is not None and live.rollout is not None:
        rollout = live.rollout.model_dump(mode="json", include={"id", "state", "reason"})
    weights = (model.release if live is None else live.revision.release).weights
    return {
        "model": name,
        "revision": None if live is None else live.revision.number,
        "rollout": rollout,
        "versions": _versions(name, model, details, rates, weights),
    }


def _versions(
    name: str,
    model: ModelConfig,
    details: dict[str, Any],
    rates: Mapping[Key, Rates],
    weights: Mapping[str, int],
) -> list[Report]:
    versions = []
    for version, settings in model.versions.items():
        state = version_state(details, VersionKey(name, version), settings)
        versions.append(
            {
                "version": version,
                "traffic_percent": weights.get(version, 0),
                "ready": state.ready,
                "idle": state.idle,
                "replicas": state.running,
                "replicas_target": state.target,
                "replicas_min": settings.replicas.min,
                "replicas_max": settings.replicas.max,
                "state": state.state,
                "message": state.message,
                **_figures(rates.get((name, version), Rates())),
            }
        )
    return versions


def show(report: Report) -> None:
    """Prints the report as a table that fits 100 columns; messages stand below it."""
    ingress = report["ingress"]
    say(f"{report['http']}   ingress {ingress['replicas']} of {ingress['target']} replicas ready")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model", max_width=28, overflow="ellipsis", no_wrap=True)
    table.add_column("version", max_width=12, overflow="ellipsis", no_wrap=True)
    for column in ("traffic", "replicas", "req/s", "p50 ms", "p99 ms", "errors"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    messages = []
    for model in report["models"]:
        if (rollout := model["rollout"]) is not None:
            words = f"rollout {rollout['id']} is {rollout['state']}: {rollout['reason']}"
            messages.append(f"{model['model']}: {words}")
        for version in model["versions"]:
            table.add_row(model["model"], *_row(version))
            if version["message"]:
                messages.append(f"{model['model']} {version['version']}: {version['message']}")
    out.print(table, width=WIDTH)
    for message in messages:
        say(message)


def _figures(rates: Rates) -> Report:
    return {
        "requests_per_s": round(rates.requests_per_s, 1),
        "p50_ms": None if rates.p50_ms is None else round(rates.p50_ms, 2),
        "p99_ms": None if rates.p99_ms is None else round(rates.p99_ms, 2),
        "error_ratio": round(rates.errors, 4),
    }


def _row(version: Report) -> list[str]:
    busy = version["requests_per_s"] > 0
    return [
        version["version"],
        f"{version['traffic_percent']}%",
        f"{version['replicas']} / {version['replicas_min']}-{version['replicas_max']}",
        f"{version['requests_per_s']:,.0f}",
        f"{version['p50_ms']:.1f}" if busy and version["p50_ms"] is not None else "-",
        f"{version['p99_ms']:.1f}" if busy and version["p99_ms"] is not None else "-",
        f"{version['error_ratio']:.2%}" if busy else "-",
        _state(version),
    ]


def _state(version: Report) -> str:
    if version["idle"]:
        return "idle (0)"
    return "ready" if version["ready"] else str(version["state"]).lower()
