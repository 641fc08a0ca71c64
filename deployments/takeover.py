"""After a config was applied: what became of the releases in it."""

from __future__ import annotations

import time
from collections.abc import Mapping

from deployments.live import listener_url
from deployments.readiness import POLL_S
from deployments.serve_api import ServeApi
from deployments.standings import Standings, ask
from deployments.terminal import say, waiting
from deployments.traffic import shares
from serve_app.config.root import Config
from serve_app.domain.control import Standing
from serve_app.domain.release import Release
from serve_app.errors import ClusterError


def wait_for_takeover(api: ServeApi, config: Config) -> None:
    """Waits until ModelRouter has put every release of the config in force, or begun to.

    It does so once for each release that differs from the one that it took over last. Where that
    went back, or somebody has changed it since, traffic stays, and this says so.

    Raises:
        ClusterError: `cluster.ready_timeout_s` passed; says which release, and why.
    """
    if not config.http.admin:
        return
    base = listener_url(config.http.host, config.http.port, api.dashboard)
    wanted = {name: model.release for name, model in config.models.items()}
    deadline = time.monotonic() + config.cluster.ready_timeout_s
    with waiting("Waiting for ModelRouter to take the releases over"):
        while late := _late(wanted, found := ask(base)):
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"ModelRouter has not taken the release of {', '.join(late)} over. It waits "
                    "until all versions that get traffic or a label are ready (serve-app status), "
                    "and for the database; its log says more"
                )
            time.sleep(POLL_S)
    for name, standing in (found or {}).items():
        if name in wanted:
            _show(name, wanted[name], standing)


def _late(wanted: Mapping[str, Release], found: Standings | None) -> list[str]:
    """The models whose release has not been taken over."""
    return [
        name
        for name, release in wanted.items()
        if found is None
        or name not in found
        or found[name].revision.config_digest != release.digest
    ]


def _show(name: str, wanted: Release, standing: Standing) -> None:
    its, rollout = standing.revision, standing.rollout
    now, asked = _weights(its.release), _weights(wanted)
    if rollout is not None:
        say(f"{name}: rollout {rollout.id} is {rollout.state}; traffic is {shares(now)}.")
        say(f"Follow it with: serve-app rollout {name}")
    elif now != asked:
        why = f" ({its.reason})" if its.reason else ""
        say(f"{name}: traffic stays {shares(now)}, by {its.actor}{why}.")
        again = " ".join(f"{version}={weight}" for version, weight in asked.items())
        say(f"The config asks for {shares(asked)}, once. Again: serve-app traffic {name} {again}")


def _weights(release: Release) -> dict[str, int]:
    return {version: weight for version, weight in release.weights.items() if weight}
