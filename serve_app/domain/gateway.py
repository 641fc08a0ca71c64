"""The port between the ingress and the models: one batch to one version, and back."""

from __future__ import annotations

from typing import Protocol

from serve_app.domain.inference import BatchResult, InferenceBatch, VersionKey


class Gateway(Protocol):
    """Sends batches to replicas. Implementations: a DeploymentHandle, and fakes in tests."""

    async def call(self, key: VersionKey, batch: InferenceBatch, timeout_s: float) -> BatchResult:
        """Computes one batch on one replica of a version.

        Args:
            key: the version.
            batch: the members' inputs.
            timeout_s: give up after this long.

        Raises:
            ReplicaLost: the replica died or could not be reached; it may or may not have computed.
            NotReady: there is no replica to send to.
            Overloaded: every replica refused for want of a free slot.
            DeadlineExceeded: `timeout_s` passed.
            PayloadTooLarge: the transport cannot carry a batch of this size.
            ModelFailed: the call as a whole failed inside the replica.
        """
        ...

    async def wake(self, key: VersionKey) -> None:
        """Has a replica started if there is none; returns when one can be called.

        It may take as long as a load, or for ever: whoever does not want to wait any longer cancels
        it. A start that is under way goes on all the same.

        Args:
            key: the version.

        Raises:
            ReplicaLost: the replica that was reached died; another one may come.
            NotReady: none can be started.
        """
        ...
