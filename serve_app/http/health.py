"""The probe of load balancers and of KubeRay."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from serve_app.dataplane import DataPlane


def health_router(dataplane: DataPlane) -> APIRouter:
    """The route `/-/healthz`, which says nothing but its state."""
    router = APIRouter(tags=["health"])

    @router.get(
        "/-/healthz",
        summary="Probe of load balancers and of KubeRay",
        response_class=PlainTextResponse,
        responses={503: {"description": "Not ready, or shutting down", "content": _TEXT}},
    )
    async def healthz() -> PlainTextResponse:
        if dataplane.ready:
            return PlainTextResponse("success")
        return PlainTextResponse("not ready", 503)

    return router


_TEXT = {"text/plain": {"schema": {"type": "string"}}}
