"""A client of the cluster's admin API, for the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from deployments.live import listener_url, live
from deployments.target import running_target
from deployments.terminal import user
from serve_app.config.root import Config
from serve_app.errors import ClusterError

_TIMEOUT_S = 30.0

Document = dict[str, Any]


class AdminClient:
    """Calls `/admin/v1` of an ingress; a context manager.

    Every method raises ClusterError with the server's words when it refuses.
    """

    def __init__(self, base: str, timeout_s: float = _TIMEOUT_S) -> None:
        headers = {"x-actor": user().encode("ascii", "backslashreplace").decode()}
        self._http = httpx.Client(
            base_url=f"{base}/admin/v1",
            headers=headers,
            timeout=timeout_s,
            trust_env=False,
        )

    @classmethod
    def of(cls, config: Config, home: Path) -> Self:
        """For the cluster that a config means.

        Raises:
            ClusterError: none runs, or its admin API is switched off.
        """
        target = running_target(config, home)
        with target.api() as api:
            running = live(api.details())
        if running is None:
            raise ClusterError("Nothing is deployed. Deploy with: serve-app up")
        http = running.arguments.http
        if not http.admin:
            raise ClusterError("The admin API is switched off (http.admin=false).")
        return cls(listener_url(http.host, http.port, target.dashboard))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.close()

    def standings(self) -> list[Document]:
        """The live revision and the rollout of every model."""
        found: list[Document] = self._call("GET", "/models")["models"]
        return found

    def release(self, model: str) -> Document:
        """The live revision."""
        return self._ask("GET", model, "release")

    def traffic(self, model: str, weights: Mapping[str, int], reason: str) -> Document:
        """Shares traffic by other weights; the new revision."""
        return self._ask("POST", model, "traffic", {"weights": weights, "reason": reason})

    def rollback(self, model: str, revision: int | None, reason: str) -> Document:
        """Goes back; the new revision."""
        return self._ask("POST", model, "rollback", {"revision": revision, "reason": reason})

    def revisions(self, model: str, limit: int) -> list[Document]:
        """The newest revisions."""
        found: list[Document] = self._ask("GET", model, f"revisions?limit={limit}")["revisions"]
        return found

    def rollouts(self, model: str, limit: int) -> list[Document]:
        """The newest rollouts."""
        found: list[Document] = self._ask("GET", model, f"rollouts?limit={limit}")["rollouts"]
        return found

    def steer(self, model: str, verb: str, reason: str) -> Document:
        """Acts on the rollout that is going on."""
        return self._ask("POST", model, f"rollout/{verb}", {"reason": reason})

    def report(self, model: str) -> Document:
        """The comparison of the arms."""
        return self._ask("GET", model, "report")

    def disagreements(self, model: str, limit: int) -> list[Document]:
        """Shadow answers that differed."""
        answer = self._ask("GET", model, f"disagreements?limit={limit}")
        found: list[Document] = answer["disagreements"]
        return found

    def _ask(self, method: str, model: str, path: str, body: Any = None) -> Document:
        return self._call(method, f"/models/{quote(model, safe='')}/{path}", body)

    def _call(self, method: str, path: str, body: Any = None) -> Document:
        try:
            response = self._http.request(method, path, json=body)
            answer: Document = response.json()
        except httpx.HTTPError as error:
            raise ClusterError(f"the ingress at {self._http.base_url} does not answer") from error
        except ValueError as error:
            raise ClusterError(f"{response.status_code} from {response.url}: no JSON") from error
        if response.is_error:
            field = f" ({answer['field']})" if "field" in answer else ""
            raise ClusterError(f"{answer.get('detail', response.status_code)}{field}")
        return answer
