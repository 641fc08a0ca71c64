"""What the server says about itself and its models."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version

from serve_app.dataplane import DataPlane
from serve_app.domain.routing import ModelRoute, VersionRoute
from serve_app.domain.tensor import TensorSpec
from serve_app.errors import InvalidInput, NotSupported
from serve_app.grpc.generated.open_inference_pb2 import (
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
    ServerLiveRequest,
    ServerLiveResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)

NAME = "serve-app"
EXTENSIONS = ("model_repository", "parameters")
"""Names that clients know from Triton; only what works over gRPC."""

_RELEASE = version(NAME)


class Catalog:
    """Answers every RPC that computes nothing, from the route table."""

    def __init__(self, dataplane: DataPlane) -> None:
        self._dataplane = dataplane

    def server_live(self, _request: ServerLiveRequest) -> ServerLiveResponse:
        """It answers, so it is."""
        return ServerLiveResponse(live=True)

    def server_ready(self, _request: ServerReadyRequest) -> ServerReadyResponse:
        """Whether inference requests are taken."""
        return ServerReadyResponse(ready=self._dataplane.ready)

    def model_ready(self, request: ModelReadyRequest) -> ModelReadyResponse:
        """Whether a model or version can be asked now; raises if it is not known."""
        model, route = self._look_up(request)
        ready = model.ready if route is None else route.replicas > 0
        return ModelReadyResponse(ready=ready and self._dataplane.ready)

    def server_metadata(self, _request: ServerMetadataRequest) -> ServerMetadataResponse:
        """Name, release and extensions."""
        return ServerMetadataResponse(name=NAME, version=_RELEASE, extensions=EXTENSIONS)

    def model_metadata(self, request: ModelMetadataRequest) -> ModelMetadataResponse:
        """Signature and versions; of a version, that one only."""
        model, route = self._look_up(request)
        versions = model.versions.values() if route is None else (route,)
        return ModelMetadataResponse(
            name=model.name,
            versions=[each.key.version for each in versions],
            platform=next((each.platform for each in versions), ""),
            inputs=_signature(model.inputs),
            outputs=_signature(model.outputs),
        )

    def repository_index(self, request: RepositoryIndexRequest) -> RepositoryIndexResponse:
        """All versions with their state, or those that are ready."""
        if request.repository_name:
            raise InvalidInput(
                f"there is no repository {request.repository_name!r}: leave the name empty",
                "repository_name",
            )
        response = RepositoryIndexResponse()
        for model in self._dataplane.table.models.values():
            for route in model.versions.values():
                if route.replicas:
                    response.models.add(name=model.name, version=route.key.version, state="READY")
                elif not request.ready:
                    response.models.add(
                        name=model.name,
                        version=route.key.version,
                        state="UNAVAILABLE",
                        reason="no replica is ready",
                    )
        return response

    def refuse_change(
        self, request: RepositoryModelLoadRequest | RepositoryModelUnloadRequest
    ) -> RepositoryIndexResponse:
        """Models come and go by configuration only."""
        raise NotSupported(
            f"model {request.model_name!r} cannot be loaded or unloaded by a client: "
            "the configuration of this cluster decides which models run"
        )

    def _look_up(
        self, request: ModelReadyRequest | ModelMetadataRequest
    ) -> tuple[ModelRoute, VersionRoute | None]:
        table = self._dataplane.table
        model = table.model(request.name)
        return model, table.version(request.name, request.version) if request.version else None


def _signature(specs: Iterable[TensorSpec]) -> list[ModelMetadataResponse.TensorMetadata]:
    return [
        ModelMetadataResponse.TensorMetadata(
            name=spec.name, datatype=spec.datatype, shape=spec.shape
        )
        for spec in specs
    ]
