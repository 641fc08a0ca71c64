"""The names that the parts of the cluster find each other by."""

from __future__ import annotations

from serve_app.domain.inference import VersionKey

GATEWAY = "gateway"
"""The Serve application of Ingress and ModelRouter."""

INGRESS = "Ingress"
ROUTER = "ModelRouter"
REPLICA = "ModelReplica"


def application_name(key: VersionKey) -> str:
    """The Serve application of a version; `@` cannot stand in a model's or a version's name."""
    return f"{key.model}@{key.version}"
