"""The routes of the Open Inference Protocol v2."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from serve_app import catalogue
from serve_app.catalogue import ModelDescription
from serve_app.dataplane import DataPlane
from serve_app.domain.tensor import TensorSpec
from serve_app.errors import InvalidInput, MalformedRequest
from serve_app.http.body import parse_json
from serve_app.http.head import check_media_type
from serve_app.http.openapi import infer_operation, json_body, problems
from serve_app.http.response import json_response
from serve_app.http.v2 import schema
from serve_app.http.v2.infer import InferEndpoint, InferTarget

_MODEL = "/v2/models/{model}"
_VERSION = "/v2/models/{model}/versions/{version}"


def protocol_router(dataplane: DataPlane, infer: InferEndpoint, max_json_depth: int) -> APIRouter:
    """All routes of `/v2`, the hot ones included."""
    routes = ProtocolRoutes(dataplane, infer, max_json_depth)
    router = APIRouter()
    routes.add_server(router)
    routes.add_models(router)
    routes.add_repository(router)
    return router


class ProtocolRoutes:
    """The endpoints, one method each."""

    def __init__(self, dataplane: DataPlane, infer: InferEndpoint, max_json_depth: int) -> None:
        self._dataplane = dataplane
        self._infer = infer
        self._max_json_depth = max_json_depth

    def add_server(self, router: APIRouter) -> None:
        """Server metadata and health."""
        router.get(
            "/v2", tags=["server"], summary="Server metadata", response_model=schema.ServerMetadata
        )(self.metadata)
        router.get(
            "/v2/health/live", tags=["health"], summary="Live", response_model=schema.ServerLive
        )(self.live)
        router.get(
            "/v2/health/ready",
            tags=["health"],
            summary="Ready",
            response_model=schema.ServerReady,
            responses={503: {"model": schema.ServerReady, "description": "Not ready"}},
        )(self.ready)

    def add_models(self, router: APIRouter) -> None:
        """Per model, with and without a version; the infer routes delegate to the hot path."""
        for path, suffix, metadata, ready, infer in (
            (_MODEL, "", self.model, self.model_ready, self.infer),
            (_VERSION, " version", self.version, self.version_ready, self.version_infer),
        ):
            router.get(
                path,
                tags=["models"],
                summary=f"Model{suffix} metadata",
                response_model=schema.ModelMetadata,
                responses=problems(404),
            )(metadata)
            router.get(
                f"{path}/ready",
                tags=["health"],
                summary=f"Model{suffix} ready",
                response_model=schema.ModelReady,
                responses={
                    **problems(404),
                    503: {"model": schema.ModelReady, "description": "Not ready"},
                },
            )(ready)
            router.post(
                f"{path}/infer",
                tags=["inference"],
                summary=f"Infer{suffix and ' with one version'}",
                **infer_operation(),
            )(infer)

    def add_repository(self, router: APIRouter) -> None:
        """The repository extension: what is deployed is decided by config."""
        router.post(
            "/v2/repository/index",
            tags=["repository"],
            summary="All versions of all models",
            response_model=list[schema.IndexEntry],
            responses=problems(400, 413, 415),
            openapi_extra=json_body(schema.IndexRequest, required=False),
        )(self.index)
        for verb in ("load", "unload"):
            router.post(
                f"/v2/repository/models/{{model}}/{verb}",
                tags=["repository"],
                summary=f"Refused: the configuration decides what to {verb}",
                status_code=400,
                response_class=Response,
                responses=problems(400, 413),
            )(self.refuse)

    async def metadata(self) -> Response:
        """Name, version and the extensions that this server implements."""
        return json_response(
            {
                "name": catalogue.NAME,
                "version": catalogue.RELEASE,
                "extensions": catalogue.EXTENSIONS,
            }
        )

    async def live(self) -> Response:
        """Answers as long as the process does."""
        return json_response({"live": True})

    async def ready(self) -> Response:
        """Whether this server has a route table and is not shutting down."""
        return _readiness({"ready": self._dataplane.ready})

    async def model(self, model: str) -> Response:
        """Inputs, outputs and versions; platform and properties of the default version."""
        return json_response(_metadata(catalogue.describe(self._dataplane.table, model)))

    async def version(self, model: str, version: str) -> Response:
        """The same for one version."""
        return json_response(_metadata(catalogue.describe(self._dataplane.table, model, version)))

    async def model_ready(self, model: str) -> Response:
        """Whether a request that names no version can be answered."""
        ready = catalogue.is_ready(self._dataplane, model)
        return _readiness({"name": model, "ready": ready})

    async def version_ready(self, model: str, version: str) -> Response:
        """Whether this version has a ready replica."""
        ready = catalogue.is_ready(self._dataplane, model, version)
        return _readiness({"name": model, "ready": ready})

    async def infer(self, model: str, request: Request) -> Response:
        """Computes the model's outputs; the release decides which version answers."""
        return await self._hot(model, None, request)

    async def version_infer(self, model: str, version: str, request: Request) -> Response:
        """Computes the outputs of the version in the path."""
        return await self._hot(model, version, request)

    async def _hot(self, model: str, version: str | None, request: Request) -> Response:
        headers, body = await self._infer.answer(
            InferTarget(model, version, request.scope["query_string"]),
            dict(request.scope["headers"]),
            request.receive,
            request.state.trace,
        )
        response = Response(body)
        response.raw_headers = headers
        return response

    async def index(self, request: Request) -> Response:
        """Versions that are deployed, and whether they are ready."""
        check_media_type(dict(request.scope["headers"]))
        body = await request.body()
        document = parse_json(body, self._max_json_depth) if body else {}
        if type(document) is not dict:
            raise MalformedRequest("the request must be a JSON object")
        only_ready = document.get("ready", False)
        if type(only_ready) is not bool:
            raise InvalidInput("ready must be true or false", "ready")
        entries = catalogue.index(self._dataplane.table, only_ready=only_ready)
        return json_response([entry._asdict() for entry in entries])

    async def refuse(self, model: str) -> Response:
        """Refuses: models are added and removed by configuration."""
        catalogue.refuse_change(model)


def _readiness(content: dict[str, Any]) -> Response:
    if content["ready"]:
        return json_response(content)
    return json_response(content, 503, {"retry-after": "1"})


def _metadata(model: ModelDescription) -> dict[str, Any]:
    signature = {
        "inputs": [_tensor(spec) for spec in model.inputs],
        "outputs": [_tensor(spec) for spec in model.outputs],
    }
    return model._asdict() | signature


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}
