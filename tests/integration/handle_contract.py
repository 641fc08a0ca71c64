"""The contract of the Gateway port over Serve's handles; run by `test_handle_gateway.py`.

In a process of its own, because Ray Serve reads its flags once, when it is imported. The cluster is
in the environment: CONTRACT_ADDRESS and CONTRACT_JOURNALS.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from deployments.gateway import HandleGateway
from serve_app.domain.inference import VersionKey
from tests.contract.gateway_contract import MODELS, ReplicaContract, Served

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(scope="session", autouse=True)
def driver() -> Iterator[None]:
    """This process takes part in the cluster, as an ingress does."""
    ray.init(address=os.environ["CONTRACT_ADDRESS"], namespace="serve", log_to_driver=False)
    yield
    ray.shutdown()


class TestHandleGateway(ReplicaContract):
    @pytest.fixture
    async def served(self) -> Served:
        gateway = HandleGateway()
        await gateway.prepare(VersionKey(model, "1") for model in MODELS)
        return Served(gateway, "handle", Path(os.environ["CONTRACT_JOURNALS"]) / "slow")
