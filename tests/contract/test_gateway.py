"""The contract of the Gateway port, on the implementations that need no cluster."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from serve_app.channel.gateway import DirectGateway
from serve_app.domain.inference import BatchResult, InferenceBatch, VersionKey
from serve_app.errors import NotReady
from serve_app.testing import FakeGateway
from tests.contract.channel_replica import NODE, ChannelReplica, route
from tests.contract.gateway_contract import MODELS, GatewayContract, ReplicaContract, Served


class TestFakeGateway(GatewayContract):
    """It computes at once and by itself, so it can keep the plain half of the contract only."""

    @pytest.fixture
    def served(self, tmp_path: Path) -> Served:
        return Served(FakeGateway(), "", tmp_path / "journal")


class Nobody:
    """A fallback that reaches no replica: whatever takes it shows in the test."""

    async def call(self, key: VersionKey, batch: InferenceBatch, timeout_s: float) -> BatchResult:
        raise NotReady(f"{key} has no replica yet")

    async def wake(self, key: VersionKey) -> None:
        raise NotReady(f"{key} cannot be woken")


class TestDirectGateway(ReplicaContract):
    @pytest.fixture
    async def served(self) -> AsyncIterator[Served]:
        with tempfile.TemporaryDirectory() as name:  # tmp_path may be too long for a socket
            folder = Path(name)
            replicas = {
                VersionKey(model, "1"): ChannelReplica(
                    folder / f"{model}.sock", settings.predictor(folder / model), settings.inputs
                )
                for model, settings in MODELS.items()
            }
            gateway = DirectGateway(Nobody(), NODE)
            gateway.follow([route(key, each.endpoint) for key, each in replicas.items()], 1)
            await gateway.ready(5.0)
            yield Served(gateway, "direct", folder / "slow")
            await gateway.close()
            await asyncio.gather(*[each.stop() for each in replicas.values()])
