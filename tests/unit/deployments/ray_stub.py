"""A stand-in for Ray's API and for an ingress, over real HTTP: states are what a test says."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from deployments.change import settings_of
from serve_app.domain.control import Rollout
from serve_app.domain.release import Release
from serve_app.testing import FakeControl

Document = dict[str, Any]


@dataclass
class RayStub:
    """What the cluster runs, and how it behaves."""

    url: str = ""
    document: Document | None = None
    puts: list[Document] = field(default_factory=list)
    failing: dict[str, str] = field(default_factory=dict)
    """Application -> message: those whose deploy fails."""
    sick: dict[str, str] = field(default_factory=dict)
    """Application -> message: those that are unhealthy."""
    on_put: Callable[[], None] = lambda: None
    on_get: Callable[[], None] = lambda: None
    cpus: float = 8.0
    live: dict[str, Release] = field(default_factory=dict)
    """Model -> its live release, where that is not the one in the document."""
    rollout: Rollout | None = None
    """The one that is going on."""
    ended: list[Document] = field(default_factory=list)
    """Those that are over."""
    stuck: bool = False
    """ModelRouter takes no release over."""

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def put(self, document: Document) -> None:
        self.puts.append(document)
        self.document = document
        self.on_put()

    def details(self) -> dict[str, Any]:
        self.on_get()
        applications = self.document["applications"] if self.document else []
        return {"applications": {each["name"]: self._account(each) for each in applications}}

    def _account(self, application: Document) -> dict[str, Any]:
        name = application["name"]
        status, message = "RUNNING", ""
        if name in self.failing:
            status, message = "DEPLOY_FAILED", self.failing[name]
        elif name in self.sick:
            status, message = "UNHEALTHY", self.sick[name]
        deployments = {}
        for options in application["deployments"]:
            count = options.get("num_replicas", 1)
            replicas = [{"state": "RUNNING"}] * (count if status == "RUNNING" else 0)
            deployments[options["name"]] = {
                "target_num_replicas": count,
                "replicas": replicas,
                "message": message,
            }
        return {"status": status, "deployments": deployments, "deployed_app_config": application}

    def answer(self, path: str) -> dict[str, Any]:
        if path == "/api/serve/applications/":
            return self.details()
        if path == "/api/v0/nodes":
            node = {"state": "ALIVE", "resources_total": {"CPU": self.cpus}}
            return {"data": {"result": {"result": [node]}}}
        if path == "/api/cluster_status":
            return {"data": {"clusterStatus": None}}
        if path == "/admin/v1/models":
            return {"models": self._standings()}
        if path.endswith("/rollouts?limit=1"):
            return {"rollouts": self.ended[:1]}
        return {}

    def _standings(self) -> list[Document]:
        """What ModelRouter says is in force."""
        found = []
        for name, model in settings_of(self.document).items():
            desired = Release.model_validate(model["release"])
            control = FakeControl(**{name: self.live.get(name, desired)})
            (standing,) = asyncio.run(control.standings())
            if self.rollout is not None and self.rollout.model == name:
                standing = standing.model_copy(update={"rollout": self.rollout})
            found.append(standing.model_dump(mode="json"))
            found[-1]["revision"]["config_digest"] = "stuck" if self.stuck else desired.digest
        return found


@contextmanager
def ray_stub() -> Iterator[RayStub]:
    """Runs a stub on a free port of this machine."""
    stub = RayStub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(stub.answer(self.path))

        def do_PUT(self) -> None:
            stub.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self._answer({})

        def _answer(self, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        stub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield stub
        finally:
            server.shutdown()
            thread.join()
