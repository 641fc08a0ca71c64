"""Config -> the one declarative Serve document. Pure: the same config gives the same text."""

from __future__ import annotations

from typing import Any

import yaml

from deployments.arguments import (
    GatewayArguments,
    ReplicaArguments,
    ReplicaSettings,
    RouterSettings,
)
from deployments.naming import GATEWAY, INGRESS, REPLICA, ROUTER, application_name
from deployments.options import (
    CONTROLLER_ENVIRONMENT,
    REPLICA_ENVIRONMENT,
    ingress_options,
    replica_options,
    router_options,
)
from serve_app.config.root import Config
from serve_app.domain.inference import VersionKey

Document = dict[str, Any]


def render(config: Config, *, home: str, build: str) -> Document:
    """Renders the whole cluster: the gateway and one application per model version.

    Args:
        config: the composed configuration.
        home: the folder for state and caches on each node.
        build: names the code; Serve restarts applications when it changes.
    """
    runtime_env = {"env_vars": {**REPLICA_ENVIRONMENT, "SERVE_APP_BUILD": build}}
    applications = [_gateway(config, home, runtime_env)]
    for name, model in config.models.items():
        for version in model.versions:
            applications.append(_version(config, VersionKey(name, version), home, runtime_env))
    return {
        "proxy_location": "Disabled",
        "controller_options": {"runtime_env": {"env_vars": CONTROLLER_ENVIRONMENT}},
        "applications": applications,
    }


def same(first: Document, second: Document) -> bool:
    """Whether two documents ask for the same applications, in whatever order."""

    def by_name(document: Document) -> dict[str, Any]:
        return {each["name"]: each for each in document["applications"]}

    return by_name(first) == by_name(second)


def to_yaml(document: Document) -> str:
    """The document as KubeRay's `serveConfigV2` and people read it."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Writes equal parts out in full: anchors are hard to read, and to compare."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _gateway(config: Config, home: str, runtime_env: Document) -> Document:
    arguments = GatewayArguments(
        http=config.http,
        grpc=config.grpc,
        metrics=config.metrics,
        # The replica count is a scaling field: it must not restart anything.
        ingress=config.ingress.model_copy(update={"replicas": 1}),
        log=config.log,
        home=home,
        status_poll_s=config.cluster.status_poll_s,
        transport=config.cluster.transport,
        database=config.database,
    )
    settings = RouterSettings(models=config.models)
    return {
        "name": GATEWAY,
        "route_prefix": None,
        "import_path": "deployments.app:build_gateway",
        "runtime_env": runtime_env,
        "args": arguments.model_dump(mode="json", by_alias=True),
        "deployments": [
            {"name": INGRESS, **ingress_options(config.ingress)},
            {
                "name": ROUTER,
                **router_options(config),
                "user_config": settings.model_dump(mode="json", by_alias=True),
            },
        ],
    }


def _version(config: Config, key: VersionKey, home: str, runtime_env: Document) -> Document:
    model = config.models[key.model]
    settings = model.versions[key.version]
    arguments = ReplicaArguments(
        model=key.model,
        version=key.version,
        inputs=model.inputs,
        outputs=model.outputs,
        predictor=settings.predictor,
        artifact=settings.artifact,
        resources=settings.resources,
        timeouts=settings.timeouts,
        warm_up=settings.warm_up,
        log=config.log,
        home=home,
    )
    return {
        "name": application_name(key),
        "route_prefix": None,
        "import_path": "deployments.app:build_model",
        "runtime_env": runtime_env,
        "args": arguments.model_dump(mode="json", by_alias=True),
        "deployments": [
            {
                "name": REPLICA,
                **replica_options(settings),
                "user_config": ReplicaSettings(
                    slots=settings.batching.slots_per_replica
                ).model_dump(),
            }
        ],
    }
