"""The FastAPI application: every route that is not hot, and one document for all of them."""

from __future__ import annotations

from typing import NoReturn

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from serve_app.catalogue import RELEASE
from serve_app.config.listener import HttpConfig
from serve_app.dataplane import DataPlane
from serve_app.domain.control import Control
from serve_app.domain.deployer import Deployer
from serve_app.errors import InvalidInput, MethodNotAllowed, RequestError, RouteNotFound
from serve_app.http.admin.deployment_routes import deployment_router
from serve_app.http.admin.routes import admin_router, outcome_router
from serve_app.http.health import health_router
from serve_app.http.middleware import RequestEnvelope
from serve_app.http.openapi import TAGS, DocumentedApp
from serve_app.http.v1.routes import openai_router
from serve_app.http.v2.infer import InferEndpoint
from serve_app.http.v2.routes import protocol_router
from serve_app.telemetry.sink import Telemetry


def create_rest(
    dataplane: DataPlane,
    http: HttpConfig,
    telemetry: Telemetry,
    infer: InferEndpoint,
    control: Control | None = None,
    deployer: Deployer | None = None,
) -> FastAPI:
    """Builds the FastAPI application.

    Args:
        dataplane: holds the route table and computes embeddings.
        http: body cap, JSON depth, and whether documentation is served.
        telemetry: hears of every finished request.
        infer: the hot path, documented here as two routes.
        control: changes releases and takes outcomes; without it those routes do not exist.
        deployer: plans and applies whole deployments; likewise.
    """
    app = DocumentedApp(
        title="serve-app",
        version=RELEASE,
        summary="Model serving by the Open Inference Protocol v2 and an OpenAI-compatible API.",
        openapi_tags=TAGS,
        docs_url="/docs" if http.docs else None,
        openapi_url="/openapi.json" if http.docs else None,
        redoc_url=None,
        redirect_slashes=False,
    )
    depth = http.max_json_depth
    routers = [
        protocol_router(dataplane, infer, depth),
        openai_router(dataplane, depth),
        health_router(dataplane),
    ]
    if control is not None:
        routers.append(outcome_router(control, depth))
        if http.admin:
            routers.append(admin_router(control, depth))
    if deployer is not None and http.admin:
        routers.append(deployment_router(deployer, depth))
    for router in routers:
        app.include_router(router)
    app.state.routes = [*app.routes, *(route for router in routers for route in router.routes)]
    app.add_exception_handler(HTTPException, _translate_http)
    app.add_exception_handler(RequestValidationError, _translate_validation)
    app.add_middleware(RequestEnvelope, http=http, telemetry=telemetry)
    return app


def _translate_http(request: Request, exc: Exception) -> NoReturn:
    """Turns what the framework raises into our tree; the envelope answers it."""
    if not isinstance(exc, HTTPException):
        raise exc
    path = request.scope["path"]
    if exc.status_code == 404:
        raise RouteNotFound(f"there is nothing at {path}") from exc
    if exc.status_code == 405:
        raise MethodNotAllowed(
            f"{request.method} is not allowed at {path}", _allowed(request)
        ) from exc
    raise RequestError("the request cannot be read") from exc


def _allowed(request: Request) -> str:
    """The methods of a path; the framework knows those of its first route only."""
    methods: set[str] = set()
    for route in request.app.state.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    return ", ".join(sorted(methods))


def _translate_validation(request: Request, exc: Exception) -> NoReturn:
    if not isinstance(exc, RequestValidationError):
        raise exc
    first = exc.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    raise InvalidInput(str(first["msg"]), field) from exc
