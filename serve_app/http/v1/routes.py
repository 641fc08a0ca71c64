"""The OpenAI-compatible routes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from serve_app.dataplane import DataPlane
from serve_app.domain.bytes_tensor import bytes_array
from serve_app.domain.caller import HttpCaller
from serve_app.domain.inference import InferenceRequest
from serve_app.errors import InvalidInput, ModelNotFound
from serve_app.http.body import parse_json
from serve_app.http.errors import FALLBACK_FROM
from serve_app.http.head import check_media_type, header_timeout_s
from serve_app.http.openapi import EMBEDDINGS_EXAMPLES, TIMEOUT_HEADER, json_body, problems
from serve_app.http.response import json_response
from serve_app.http.v1 import schema
from serve_app.http.v1.embeddings import decode_embeddings, embedding_model, encode_embeddings


def openai_router(dataplane: DataPlane, max_json_depth: int) -> APIRouter:
    """All routes of `/v1`."""
    routes = OpenAIRoutes(dataplane, max_json_depth)
    router = APIRouter(tags=["openai"])
    router.get("/v1/models", summary="Models for embeddings", response_model=schema.ModelList)(
        routes.models
    )
    router.get(
        "/v1/models/{model}",
        summary="One model for embeddings",
        response_model=schema.ModelCard,
        responses=problems(404, openai=True),
    )(routes.model)
    router.post(
        "/v1/embeddings",
        summary="Embed texts",
        response_model=schema.EmbeddingsResponse,
        responses=problems(400, 404, 408, 413, 415, 500, 503, 504, openai=True),
        openapi_extra={
            **json_body(schema.EmbeddingsRequest, EMBEDDINGS_EXAMPLES),
            "parameters": [TIMEOUT_HEADER],
        },
    )(routes.embeddings)
    return router


class OpenAIRoutes:
    """The endpoints, one method each."""

    def __init__(self, dataplane: DataPlane, max_json_depth: int) -> None:
        self._dataplane = dataplane
        self._max_json_depth = max_json_depth

    async def models(self) -> Response:
        """Models that can answer in this family: those with an embeddings signature."""
        cards = [
            _card(route.name)
            for route in self._dataplane.table.models.values()
            if embedding_model(route) is not None
        ]
        return json_response({"object": "list", "data": cards})

    async def model(self, model: str) -> Response:
        """One of them."""
        if embedding_model(self._dataplane.table.model(model)) is None:
            raise ModelNotFound(model)
        return json_response(_card(model))

    async def embeddings(self, request: Request) -> Response:
        """Embeds one text or a list of texts; a list is one request of so many rows."""
        headers = dict(request.scope["headers"])
        check_media_type(headers)
        call = decode_embeddings(parse_json(await request.body(), self._max_json_depth))
        trace = request.state.trace
        route = self._dataplane.table.model(call.model)
        trace.model = route.name
        timeout_s = header_timeout_s(headers)
        form = embedding_model(route)
        if form is None:
            raise InvalidInput(f"model {call.model!r} does not offer embeddings", "model")
        if call.dimensions not in (None, form.dimensions):
            raise InvalidInput(
                f"model {call.model!r} has {form.dimensions} dimensions and no others", "dimensions"
            )
        result = await self._dataplane.infer(
            InferenceRequest(
                call.model,
                None,
                {form.input: bytes_array(call.texts, (len(call.texts),))},
                trace.request_id,
                timeout_s,
                form.outputs,
                caller=HttpCaller(headers, request.scope["query_string"]),
            ),
            trace,
        )
        more = {"x-model-version": result.version}
        if trace.fallback_from:
            more[FALLBACK_FROM.decode()] = trace.fallback_from
        return json_response(encode_embeddings(result, as_base64=call.base64), headers=more)


def _card(model: str) -> dict[str, Any]:
    return {"id": model, "object": "model", "created": 0, "owned_by": "serve-app"}
