"""The one composition root: builders that Serve calls with the arguments of the document.

`from __future__ import annotations` must stay out of this module: Serve validates a builder's
argument only if its annotation is a class at run time.

Serve builds each application in a process of its own, all at once, and throws that away: what only
another application needs is not imported (0.8 s of CPU for each version).
"""

from ray import serve
from ray.serve import Application, Deployment

from deployments.arguments import GatewayArguments, ReplicaArguments
from deployments.naming import INGRESS, REPLICA, ROUTER


def build_gateway(arguments: GatewayArguments) -> Application:
    """The ingress and its router."""
    from deployments.ingress import Ingress
    from deployments.router import ModelRouter

    router = _deployment(ModelRouter, ROUTER).bind(arguments)
    return _deployment(Ingress, INGRESS).bind(arguments, router)


def build_model(arguments: ReplicaArguments) -> Application:
    """One model version."""
    from deployments.replica import ModelReplica

    return _deployment(ModelReplica, REPLICA).bind(arguments)


def _deployment(kind: type, name: str) -> Deployment:
    """A plain class as a deployment; its options stand in the document."""
    deployment: Deployment = serve.deployment(name=name)(kind)
    return deployment
