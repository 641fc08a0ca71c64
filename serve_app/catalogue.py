"""What is served here, for every protocol: descriptions, readiness and the repository's index.

The transports only translate what they get here, so that their clients are told the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version as release_of
from typing import Literal, NamedTuple, NoReturn

from serve_app.dataplane import DataPlane
from serve_app.domain.routing import ModelRoute, RouteTable, VersionRoute
from serve_app.domain.tensor import TensorSpec
from serve_app.errors import RequestError

NAME = "serve-app"
RELEASE = release_of(NAME)
EXTENSIONS = ("binary_tensor_data", "model_repository")
"""Extensions of the protocol, by the names that clients know from Triton.

Its `parameters` is not among them: that one hands parameters of a request to the model.
"""


class ModelDescription(NamedTuple):
    """A model, or one version of it."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    properties: dict[str, str]


class IndexEntry(NamedTuple):
    """One version in the repository's index."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


def describe(table: RouteTable, model: str, version: str | None = None) -> ModelDescription:
    """Describes one version, or a model as a whole by the version that gets most of its traffic.

    Raises:
        ModelNotFound: there is no such model.
        VersionNotFound: it has no such version.
    """
    route = table.model(model)
    if version is None:
        chosen, versions = _default(route), tuple(route.versions)
    else:
        chosen = table.version(model, version)
        versions = (chosen.key.version,)
    return ModelDescription(
        route.name,
        versions,
        chosen.platform,
        route.inputs,
        route.outputs,
        {"description": route.description, **chosen.metadata},
    )


def _default(model: ModelRoute) -> VersionRoute:
    """The version with most of the traffic, of the ready ones if there are any."""
    candidate = max(
        model.release.candidates,
        key=lambda each: (model.versions[each.version].replicas > 0, each.weight),
    )
    return model.versions[candidate.version]


def is_ready(dataplane: DataPlane, model: str, version: str | None = None) -> bool:
    """Whether a request for a model, or for one version of it, can be answered now.

    Raises:
        ModelNotFound: there is no such model.
        VersionNotFound: it has no such version.
    """
    if version is None:
        ready = dataplane.table.model(model).ready
    else:
        ready = dataplane.table.version(model, version).replicas > 0
    return ready and dataplane.ready


def index(table: RouteTable, *, only_ready: bool = False) -> Iterator[IndexEntry]:
    """All versions of all models, or those that are ready."""
    for model in table.models.values():
        for route in model.versions.values():
            if route.replicas:
                yield IndexEntry(*route.key, "READY", "")
            elif not only_ready:
                yield IndexEntry(*route.key, "UNAVAILABLE", "no replica is ready")


def refuse_change(model: str) -> NoReturn:
    """Refuses to load or unload a model: they come and go by configuration only.

    Raises:
        RequestError: always.
    """
    raise RequestError(
        f"{model!r} cannot be loaded or unloaded here: the configuration decides what is served, "
        "see `serve-app apply`"
    )
