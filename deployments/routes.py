"""From configured models, replica counts and announcements to the route table."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from deployments.endpoints import Endpoints
from deployments.naming import GATEWAY, INGRESS, REPLICA, application_name
from serve_app.config.model import ModelConfig
from serve_app.domain.inference import VersionKey
from serve_app.domain.release import Release
from serve_app.domain.routing import Endpoint, ModelRoute, RouteTable, VersionRoute

Counts = Mapping[tuple[str, str], int]
"""Running replicas by (application, deployment)."""

Facts = Mapping[VersionKey, Mapping[str, str]]
"""What versions know about themselves."""

_NO_FACTS: Mapping[str, str] = {}

_Live = tuple[int, Mapping[str, str], tuple[Endpoint, ...], bool]
"""What changes while a version runs: ready replicas, facts, endpoints, whether it can start."""


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A model's route, and all that it was made from."""

    model: ModelConfig
    release: Release
    keys: tuple[tuple[VersionKey, tuple[str, str]], ...]
    """Of each version: its own, and that of its replica count."""
    live: tuple[_Live, ...]
    route: ModelRoute


class RouteCompiler:
    """Compiles route tables, and keeps the routes of models for which nothing has changed.

    Most changes are a replica of one version that comes or goes. With ten thousand models the rest
    is not made again, and a comparison of two tables finds the same objects.
    """

    def __init__(self) -> None:
        self._compiled: dict[str, _Compiled] = {}

    def compile(
        self,
        models: Mapping[str, ModelConfig],
        releases: Mapping[str, Release],
        counts: Counts,
        facts: Facts,
        endpoints: Endpoints,
        able: Container[str] = (),
    ) -> RouteTable:
        """The route table, without a revision.

        Args:
            models: as configured.
            releases: that are in force, one of each model.
            counts: ready replicas.
            facts: what replicas say of themselves.
            endpoints: their channels.
            able: applications that can start a replica when they are asked.
        """
        before = self._compiled
        compiled = self._compiled = {
            name: _compile(
                (name, model, releases[name]), counts, facts, endpoints, able, before.get(name)
            )
            for name, model in models.items()
        }
        return RouteTable(
            revision=0,
            models={name: each.route for name, each in compiled.items()},
            ingresses=max(1, counts.get((GATEWAY, INGRESS), 0)),
        )


def compile_table(
    models: Mapping[str, ModelConfig],
    counts: Counts,
    facts: Facts,
    endpoints: Endpoints | None = None,
    able: Container[str] = (),
) -> RouteTable:
    """The same from nothing, with the desired releases. Pure."""
    releases = {name: model.release for name, model in models.items()}
    return RouteCompiler().compile(models, releases, counts, facts, endpoints or {}, able)


def _compile(
    named: tuple[str, ModelConfig, Release],
    counts: Counts,
    facts: Facts,
    endpoints: Endpoints,
    able: Container[str],
    before: _Compiled | None,
) -> _Compiled:
    name, model, release = named
    same = before is not None and before.model is model
    keys = before.keys if before is not None and same else _keys(name, model)
    live = tuple(
        [
            (
                counts.get(count_key, 0),
                facts.get(key, _NO_FACTS),
                endpoints.get(key, ()),
                count_key[0] in able,
            )
            for key, count_key in keys
        ]
    )
    if (
        before is not None
        and same
        and before.live == live
        # Most are the same object: a comparison takes a hundred times as long.
        and (before.release is release or before.release == release)
    ):
        return before
    return _Compiled(model, release, keys, live, _route(name, model, release, keys, live))


def _keys(name: str, model: ModelConfig) -> tuple[tuple[VersionKey, tuple[str, str]], ...]:
    keys = [VersionKey(name, version) for version in model.versions]
    return tuple((key, (application_name(key), REPLICA)) for key in keys)


def _route(
    name: str,
    model: ModelConfig,
    release: Release,
    keys: tuple[tuple[VersionKey, tuple[str, str]], ...],
    live: tuple[_Live, ...],
) -> ModelRoute:
    versions = {}
    for (key, (application, _)), (replicas, facts, endpoints, able) in zip(keys, live, strict=True):
        settings = model.versions[key.version]
        versions[key.version] = VersionRoute(
            key=key,
            application=application,
            platform=settings.platform,
            batching=settings.batching,
            timeout_s=settings.timeouts.request_s,
            replicas=replicas,
            idempotent=settings.idempotent,
            metadata={**settings.metadata, **facts},
            endpoints=endpoints,
            asleep=able and not replicas and settings.replicas.min == 0,
        )
    return ModelRoute(
        name=name,
        description=model.description,
        inputs=model.inputs,
        outputs=model.outputs,
        versions=versions,
        release=release,
    )
