"""What stands behind the admin API, in one process: real orders, records and SQL, no Ray.

Orders run in threads where the product has actors; Ray's API and the ingress are a stub.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployments import applier, deployer
from deployments.applier import Applier
from deployments.arguments import GatewayArguments
from deployments.live import live
from deployments.manifest import render
from deployments.records import Records
from deployments.releases import Releases
from deployments.router import ModelRouter
from serve_app.config.load import load_config
from serve_app.domain.control import Author
from serve_app.domain.deployer import Wanted
from tests.unit.deployments.ray_stub import RayStub, ray_stub

CONFIGS = Path(__file__).parents[2] / "integration" / "configs"


def arguments_of(ray: RayStub, home: Path, overrides: list[str]) -> GatewayArguments:
    """What an ingress of this config gets."""
    former, ray.document = ray.document, render(load_config(overrides), home=str(home), build="b")
    found = live(ray.details())
    ray.document = former
    assert found is not None
    return found.arguments


class HeadNode:
    """A home, a stub of a cluster, and the processes that orders would have."""

    def __init__(self, home: Path, ray: RayStub, model: str = "echo") -> None:
        self.home, self.ray = home, ray
        self.settings = ["env=test", f"model=[{model}]", f"http.port={ray.port}"]
        self.settings += ["cluster.settle_s=0", "cluster.ready_timeout_s=5"]
        self.arguments = arguments_of(ray, home, self.settings)
        self.launched: list[str] = []
        self.ended = threading.Semaphore(0)
        self.waited = 0

    def router(self, releases: Releases | None = None) -> Any:
        """Like a handle of ModelRouter."""
        its = SimpleNamespace(_releases=releases, _records=Records(self.arguments.database))

        async def remote(verb: str, *arguments: Any) -> Any:
            return await ModelRouter.control(its, verb, *arguments)  # type: ignore[arg-type]

        return SimpleNamespace(control=SimpleNamespace(remote=remote))

    def launch(self, arguments: GatewayArguments, verb: str, *order: Any) -> Any:
        """Like `deployments.applier.launch`."""
        self.launched.append(verb)
        made = Applier(arguments, verb, *order)
        return SimpleNamespace(
            answer=SimpleNamespace(remote=lambda: asyncio.to_thread(made.answer))
        )

    def apply(self, actor: str, reason: str) -> None:
        """Deploys the plain settings."""
        order = Wanted(overrides=tuple(self.settings)), Author(actor=actor, reason=reason)
        self.launched.append("apply")
        Applier(self.arguments, "apply", *order).answer()
        self.wait()

    def wait(self) -> None:
        """Until one more order has ended."""
        assert self.ended.acquire(timeout=20)
        self.waited += 1

    def wait_for_all(self) -> None:
        """Until every order that was launched has ended."""
        while self.waited < len(self.launched):
            self.wait()


@contextmanager
def head_node(home: Path, patch: pytest.MonkeyPatch, model: str = "echo") -> Iterator[HeadNode]:
    """Runs one; every order must have been waited for at the end."""
    patch.setenv("SERVE_APP_HOME", str(home))
    patch.setenv("SERVE_APP_CONFIG_DIR", str(CONFIGS))
    patch.setenv("RAY_AUTH_TOKEN", "t")
    patch.setattr(applier, "UNASKED_S", 0.1)
    patch.setattr(applier, "FAREWELL_S", 0.01)
    with ray_stub() as ray:
        made = HeadNode(home, ray, model)
        patch.setattr(applier, "_dashboard", lambda: ray.url)
        patch.setattr(applier, "_end", made.ended.release)
        patch.setattr(deployer, "launch", made.launch)
        yield made
