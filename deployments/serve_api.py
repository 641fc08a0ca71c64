"""A small client of Ray's REST API, which the command line speaks instead of Ray."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import httpx

from serve_app.errors import ClusterError

_APPLICATIONS = "/api/serve/applications/"
_NODES = "/api/v0/nodes"
_STATUS = "/api/cluster_status"


class ServeApi:
    """Reads and replaces the declarative Serve document of a cluster."""

    def __init__(self, dashboard: str, token: str) -> None:
        self.dashboard = dashboard
        self._client = httpx.Client(
            base_url=dashboard,
            headers={"authorization": f"Bearer {token.strip()}"},
            timeout=30.0,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.close()

    def answers(self) -> bool:
        """Whether the API is up."""
        try:
            return self._client.get(_APPLICATIONS, timeout=5.0).status_code == 200
        except httpx.HTTPError:
            return False

    def put(self, document: dict[str, Any]) -> None:
        """Replaces the whole set of applications; returns before they are ready."""
        self._call("PUT", _APPLICATIONS, json=document)

    def delete(self, timeout_s: float) -> None:
        """Removes all applications, draining them; may return before they are gone."""
        try:
            self._call("DELETE", _APPLICATIONS, timeout=timeout_s)
        except ClusterError as error:
            if not isinstance(error.__cause__, httpx.ReadTimeout):
                raise

    def details(self) -> dict[str, Any]:
        """The state of all applications, deployments and replicas."""
        answer: dict[str, Any] = self._call("GET", _APPLICATIONS).json()
        return answer

    def nodes(self) -> list[dict[str, Any]]:
        """Ray's account of each node, `resources_total` among it."""
        answer: list[dict[str, Any]] = self._call("GET", _NODES).json()["data"]["result"]["result"]
        return answer

    def usage(self) -> dict[str, tuple[float, float]]:
        """Resource -> (reserved, total) of all nodes, as they were a few seconds ago.

        Empty until Ray's autoscaler has looked for the first time.
        """
        status = self._call("GET", _STATUS).json()["data"].get("clusterStatus") or {}
        usage: dict[str, tuple[float, float]] = status.get("loadMetricsReport", {}).get("usage", {})
        return usage

    def _call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            response = self._client.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise ClusterError(
                f"the cluster at {self.dashboard} does not answer: {error}"
            ) from error
        if response.status_code in (401, 403):
            raise ClusterError(f"the cluster at {self.dashboard} refused the token")
        if response.is_error:
            raise ClusterError(
                f"the cluster at {self.dashboard} refused {method} {path}: {response.text[:2000]}"
            )
        return response
