"""What `serve-app status` tells: what runs, how busy it is, and where requests go."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from deployments.admin import AdminClient
from deployments.live import document, listener_url, live
from deployments.naming import GATEWAY, INGRESS
from deployments.rates import ALL, Key, Rates, measure
from deployments.standings import Standings, standings
from deployments.status import deployment_state, states, version_state
from deployments.target import running_target
from serve_app.config.model import ModelConfig
from serve_app.config.root import Config
from serve_app.domain.inference import VersionKey
from serve_app.domain.release import Release
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


def collect_model(config: Config, home: Path, name: str) -> Report:
    """One model of `collect`, with its newest rollout also if that is over.

    Raises:
        ClusterError: as `collect`, or there is no such model.
    """
    models = {each["model"]: each for each in collect(config, home)["models"]}
    if name not in models:
        raise ClusterError(f"There is no model {name!r}. Running: {', '.join(models)}")
    found: Report = models[name]
    if found["rollout"] is None:
        # ModelRouter, its database or the admin API may be away: the rest is worth showing.
        with suppress(ClusterError), AdminClient.of(config, home) as api:
            found["rollout"] = next(iter(api.rollouts(name, 1)), None)
    return found


def _model(
    name: str,
    model: ModelConfig,
    details: dict[str, Any],
    rates: Mapping[Key, Rates],
    now: Standings,
) -> Report:
    live = now.get(name)
    rollout = None if live is None or live.rollout is None else live.rollout
    release = model.release if live is None else live.revision.release
    versions = _versions(name, model, details, rates, release)
    return {
        "model": name,
        "ready": all(version["ready"] for version in versions),
        "revision": None if live is None else live.revision.number,
        "rollout": None if rollout is None else rollout.model_dump(mode="json"),
        **_figures(rates.get((name, ALL), Rates())),
        "versions": versions,
    }


def _versions(
    name: str,
    model: ModelConfig,
    details: dict[str, Any],
    rates: Mapping[Key, Rates],
    release: Release,
) -> list[Report]:
    versions = []
    for version, settings in model.versions.items():
        state = version_state(details, VersionKey(name, version), settings)
        versions.append(
            {
                "version": version,
                "labels": [label for label, its in release.labels.items() if its == version],
                "traffic_percent": release.weights.get(version, 0),
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


def _figures(rates: Rates) -> Report:
    rows = rates.rows_per_batch
    return {
        "requests_per_s": round(rates.requests_per_s, 1),
        "p50_ms": None if rates.p50_ms is None else round(rates.p50_ms, 2),
        "p99_ms": None if rates.p99_ms is None else round(rates.p99_ms, 2),
        "error_ratio": round(rates.errors, 4),
        "rows_per_batch": None if rows is None else round(rows, 1),
    }
