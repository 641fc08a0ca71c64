"""What the server says about itself and its models, as messages."""

from __future__ import annotations

from collections.abc import Iterable

from serve_app import catalogue
from serve_app.dataplane import DataPlane
from serve_app.domain.tensor import TensorSpec
from serve_app.errors import InvalidInput
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


class Catalogue:
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
        ready = catalogue.is_ready(self._dataplane, request.name, request.version or None)
        return ModelReadyResponse(ready=ready)

    def server_metadata(self, _request: ServerMetadataRequest) -> ServerMetadataResponse:
        """Name, release and extensions."""
        return ServerMetadataResponse(
            name=catalogue.NAME, version=catalogue.RELEASE, extensions=catalogue.EXTENSIONS
        )

    def model_metadata(self, request: ModelMetadataRequest) -> ModelMetadataResponse:
        """Signature and versions; of a version, that one only. The message has no properties."""
        model = catalogue.describe(self._dataplane.table, request.name, request.version or None)
        return ModelMetadataResponse(
            name=model.name,
            versions=model.versions,
            platform=model.platform,
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
        for entry in catalogue.index(self._dataplane.table, only_ready=request.ready):
            response.models.add(**entry._asdict())
        return response

    def refuse_change(
        self, request: RepositoryModelLoadRequest | RepositoryModelUnloadRequest
    ) -> RepositoryIndexResponse:
        """Models come and go by configuration only."""
        catalogue.refuse_change(request.model_name)


def _signature(specs: Iterable[TensorSpec]) -> list[ModelMetadataResponse.TensorMetadata]:
    return [
        ModelMetadataResponse.TensorMetadata(
            name=spec.name, datatype=spec.datatype, shape=spec.shape
        )
        for spec in specs
    ]
