"""What is deployed, read back from the cluster itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from deployments.arguments import GatewayArguments, RouterSettings
from deployments.manifest import Document
from deployments.naming import GATEWAY, ROUTER
from serve_app.config.model import ModelConfig
from serve_app.errors import ClusterError


@dataclass(frozen=True, slots=True)
class Live:
    """The configuration that a cluster runs."""

    arguments: GatewayArguments
    models: Mapping[str, ModelConfig]


def live(details: dict[str, Any]) -> Live | None:
    """Reads the configuration out of Serve's account; None when nothing of ours is deployed.

    Raises:
        ClusterError: it cannot be read, because another release of this program has written it.
    """
    gateway = details.get("applications", {}).get(GATEWAY, {}).get("deployed_app_config")
    if gateway is None:
        return None
    try:
        router = next(each for each in gateway["deployments"] if each["name"] == ROUTER)
        return Live(
            GatewayArguments.model_validate(gateway["args"]),
            RouterSettings.model_validate(router["user_config"]).models,
        )
    except (ValidationError, LookupError, StopIteration) as error:
        raise ClusterError(
            "The cluster runs another release of serve-app. Bring it to this one with: "
            "serve-app apply"
        ) from error


def document(details: dict[str, Any]) -> Document | None:
    """The document that the cluster runs, to be put back; None when it runs nothing.

    Raises:
        ClusterError: it runs applications that are not ours. A document replaces all of them, so
            we keep away.
    """
    applications: dict[str, Any] = details.get("applications", {})
    if not applications:
        return None
    if GATEWAY not in applications:
        raise ClusterError(
            f"the cluster runs applications that are not ours: {', '.join(applications)}. "
            "Applying a config would remove them. Use a cluster of its own."
        )
    configs = [account.get("deployed_app_config") for account in applications.values()]
    return {"proxy_location": "Disabled", "applications": [each for each in configs if each]}


def listener_url(host: str, port: int, dashboard: str) -> str:
    """Where this machine reaches a listener of the cluster with that dashboard.

    A listener on all interfaces is reached where the dashboard is.
    """
    if host in ("0.0.0.0", "::"):
        host = urlsplit(dashboard).hostname or "127.0.0.1"
    return f"http://{host}:{port}"
