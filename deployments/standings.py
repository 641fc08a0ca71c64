"""The releases that are in force on a running cluster, as ModelRouter tells them.

Where nobody answers, those of the config have to do: the admin API is switched off, ModelRouter is
away, or the cluster runs another release of this program.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from deployments.admin import AdminClient
from deployments.change import application
from deployments.live import listener_url
from deployments.manifest import Document
from deployments.naming import GATEWAY
from serve_app.domain.control import Standing
from serve_app.errors import ClusterError

_TIMEOUT_S = 5.0

Standings = Mapping[str, Standing]
"""Model -> where its requests go now."""


def standings(running: Document | None, dashboard: str) -> Standings | None:
    """Asks an ingress of the cluster that runs this document; None where nobody answers."""
    http = ((application(running, GATEWAY) or {}).get("args") or {}).get("http") or {}
    if not http.get("admin"):
        return None
    return ask(listener_url(http["host"], http["port"], dashboard))


def ask(base: str) -> Standings | None:
    """Asks the ingress at this address; None where nobody answers."""
    try:
        with AdminClient(base, _TIMEOUT_S) as api:
            found = [Standing.model_validate(each) for each in api.standings()]
    except (ClusterError, ValidationError):
        return None
    return {each.revision.model: each for each in found}
