"""The routes of `/admin/v1`, and the one of `/v2` that takes outcomes from clients."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ValidationError

from serve_app.config.key_path import spell
from serve_app.config.problem import from_validation
from serve_app.domain.control import Author, Control, Revision, Rollout, Steering
from serve_app.errors import InvalidInput, MalformedRequest
from serve_app.http.admin import schema
from serve_app.http.body import parse_json
from serve_app.http.head import check_media_type
from serve_app.http.openapi import json_body, problems
from serve_app.http.response import json_response

_MODEL = "/admin/v1/models/{model}"
_ACTOR = b"x-actor"
_ACTOR_PATTERN = re.compile(r"[\x20-\x7e]{1,255}")
_ETAG = re.compile(rb'(?:W/)?"([0-9]{1,18})"')
_CHANGES = problems(400, 404, 409, 412, 413, 415, 503)
_READS = problems(404, 503)

Body = TypeVar("Body", bound=BaseModel)

IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "The ETag of the revision that the change is meant for: 412 if another is in "
    "force. Without it the change is made whatever is there.",
    "schema": {"type": "string"},
}
ACTOR = {
    "name": "x-actor",
    "in": "header",
    "required": False,
    "description": "Who acts, for the history. A claim: nobody is authenticated yet.",
    "schema": {"type": "string", "maxLength": 255},
}


def admin_router(control: Control, max_json_depth: int) -> APIRouter:
    """All routes of the admin API."""
    routes = AdminRoutes(control, max_json_depth)
    router = APIRouter(tags=["admin"])
    routes.add_releases(router)
    routes.add_rollouts(router)
    routes.add_experiments(router)
    return router


def outcome_router(control: Control, max_json_depth: int) -> APIRouter:
    """The route by which clients report outcomes."""
    routes = AdminRoutes(control, max_json_depth)
    router = APIRouter(tags=["inference"])
    router.post(
        "/v2/models/{model}/outcomes",
        summary="Report what became of answers",
        response_model=schema.Receipts,
        responses=problems(400, 404, 413, 415, 503),
        openapi_extra=json_body(schema.OutcomeReport, OUTCOME_EXAMPLES),
    )(routes.record)
    return router


RELEASE_EXAMPLES = {
    "canary": {
        "summary": "a tenth of the traffic to version 3",
        "value": {
            "release": {
                "candidates": [{"version": "2", "weight": 90}, {"version": "3", "weight": 10}]
            },
            "reason": "try the CNN",
        },
    },
}
TRAFFIC_EXAMPLES = {
    "split": {"summary": "9 to 1", "value": {"weights": {"2": 90, "3": 10}, "reason": "try 3"}},
}
OUTCOME_EXAMPLES = {
    "label": {
        "summary": "the true class of an answer",
        "value": {"outcomes": [{"request_id": "4f1c", "label": 7}]},
    },
}


class AdminRoutes:
    """The endpoints, one method each."""

    def __init__(self, control: Control, max_json_depth: int) -> None:
        self._control = control
        self._max_json_depth = max_json_depth

    def add_releases(self, router: APIRouter) -> None:
        """The live release of a model and its history."""
        release = f"{_MODEL}/release"
        router.get(release, summary="The live release", response_model=Revision, responses=_READS)(
            self.release
        )
        router.put(
            release,
            summary="Put another release in force",
            response_model=Revision,
            responses=_CHANGES,
            openapi_extra=_changing(schema.ReleaseChange, RELEASE_EXAMPLES),
        )(self.change)
        router.post(
            f"{_MODEL}/traffic",
            summary="Share traffic by other weights, at once",
            response_model=Revision,
            responses=_CHANGES,
            openapi_extra=_changing(schema.TrafficChange, TRAFFIC_EXAMPLES),
        )(self.traffic)
        router.post(
            f"{_MODEL}/rollback",
            summary="Go back to an earlier revision at once",
            response_model=Revision,
            responses=_CHANGES,
            openapi_extra=_changing(schema.Rollback),
        )(self.rollback)
        router.get(
            f"{_MODEL}/revisions",
            summary="History of releases",
            response_model=schema.Revisions,
            responses=problems(400, 404, 503),
        )(self.revisions)

    def add_rollouts(self, router: APIRouter) -> None:
        """Rollouts, and what can be done with the one that is going on."""
        router.get(
            f"{_MODEL}/rollouts",
            summary="Rollouts, the newest first",
            response_model=schema.Rollouts,
            responses=problems(400, 404, 503),
        )(self.rollouts)
        router.post(
            f"{_MODEL}/rollout/{{verb}}",
            summary="Promote, pause, resume or roll back the rollout that is going on",
            response_model=Rollout,
            responses=_CHANGES,
            openapi_extra={
                **json_body(schema.Reason, required=False),
                "parameters": [ACTOR],
            },
        )(self.steer)

    def add_experiments(self, router: APIRouter) -> None:
        """Outcomes, the report on the arms, and what shadows found."""
        router.post(
            f"{_MODEL}/outcomes",
            summary="Report what became of answers",
            response_model=schema.Receipts,
            responses=problems(400, 404, 413, 415, 503),
            openapi_extra=json_body(schema.OutcomeReport, OUTCOME_EXAMPLES),
        )(self.record)
        router.get(
            f"{_MODEL}/report",
            summary="The arms compared, with intervals and a verdict",
            responses=_READS,
        )(self.report)
        router.get(
            f"{_MODEL}/disagreements",
            summary="Sampled shadow answers that differed",
            response_model=schema.Disagreements,
            responses=problems(400, 404, 503),
        )(self.disagreements)

    async def release(self, model: str) -> Response:
        """Which versions take traffic now, and how; the ETag is the number of the revision."""
        return _revision(await self._control.release(model))

    async def change(self, model: str, request: Request) -> Response:
        """New weights go by the release's strategy; everything else is in force at once."""
        body = await self._read(request, schema.ReleaseChange)
        author = _author(request, body.reason)
        return _revision(
            await self._control.change(model, body.release, author, _expected(request))
        )

    async def traffic(self, model: str, request: Request) -> Response:
        """The release of now with other weights, at once; a rollout that is going on ends."""
        body = await self._read(request, schema.TrafficChange)
        now = await self._control.release(model)
        try:
            release = now.release.with_weights(body.weights)
        except ValidationError as exc:
            raise _invalid(exc, type(now.release), body.weights) from exc
        # Between reading and writing nobody else may have changed what is kept.
        expected = _expected(request)
        return _revision(
            await self._control.change(
                model,
                release,
                _author(request, body.reason),
                now.number if expected is None else expected,
                at_once=True,
            )
        )

    async def rollback(self, model: str, request: Request) -> Response:
        """Ends a rollout that is going on; makes a new revision equal to the earlier one."""
        body = await self._read(request, schema.Rollback)
        author = _author(request, body.reason)
        return _revision(
            await self._control.rollback(model, body.revision, author, _expected(request))
        )

    async def revisions(
        self,
        model: str,
        limit: int = Query(20, ge=1, le=200),
        before: int | None = Query(None, ge=1),
    ) -> Response:
        """Who changed what, when and why."""
        found = tuple(await self._control.revisions(model, limit, before))
        more = found[-1].number if len(found) == limit and found[-1].number > 1 else None
        return _json(schema.Revisions(revisions=found, before=more))

    async def rollouts(self, model: str, limit: int = Query(20, ge=1, le=200)) -> Response:
        """Each with its state, the reason for it, and the evidence."""
        return _json(schema.Rollouts(rollouts=tuple(await self._control.rollouts(model, limit))))

    async def steer(self, model: str, verb: Steering, request: Request) -> Response:
        """Promote goes to the wanted weights at once; rollback returns to those of before."""
        body = await self._read(request, schema.Reason, required=False)
        return _json(await self._control.steer(model, verb, _author(request, body.reason)))

    async def record(self, model: str, request: Request) -> Response:
        """The request id is that of the answer (`x-request-id`); each counts once."""
        body = await self._read(request, schema.OutcomeReport)
        receipts = await self._control.record(model, body.outcomes)
        return _json(schema.Receipts(receipts=tuple(receipts)))

    async def report(self, model: str) -> Response:
        """Exposures, outcomes, intervals and a plain verdict."""
        return json_response(await self._control.report(model))

    async def disagreements(self, model: str, limit: int = Query(20, ge=1, le=200)) -> Response:
        """Both answers, shortened."""
        found = tuple(await self._control.disagreements(model, limit))
        return _json(schema.Disagreements(disagreements=found))

    async def _read(self, request: Request, kind: type[Body], *, required: bool = True) -> Body:
        check_media_type(dict(request.scope["headers"]))
        body = await request.body()
        document = parse_json(body, self._max_json_depth) if body or required else {}
        if type(document) is not dict:
            raise MalformedRequest("the request must be a JSON object")
        try:
            return kind.model_validate(document)
        except ValidationError as exc:
            raise _invalid(exc, kind, document) from exc


def _changing(body: type[BaseModel], examples: dict[str, Any] | None = None) -> dict[str, Any]:
    return {**json_body(body, examples), "parameters": [IF_MATCH, ACTOR]}


def _invalid(exc: ValidationError, kind: type[BaseModel], given: Any) -> InvalidInput:
    first = from_validation(exc, kind, given)[0]
    return InvalidInput(first.text, spell(first.path) or None)


def _author(request: Request, reason: str) -> Author:
    given = dict(request.scope["headers"]).get(_ACTOR, b"").decode("latin-1")
    return Author(actor=given if _ACTOR_PATTERN.fullmatch(given) else "anonymous", reason=reason)


def _expected(request: Request) -> int | None:
    """The revision in If-Match; None if there is none, or any will do."""
    given = dict(request.scope["headers"]).get(b"if-match")
    if given is None or given.strip() == b"*":
        return None
    match = _ETAG.fullmatch(given.strip())
    if match is None:
        raise MalformedRequest('If-Match must be the ETag of a revision, such as "12"', "If-Match")
    return int(match[1])


def _revision(revision: Revision) -> Response:
    return _json(revision, {"etag": f'"{revision.number}"'})


def _json(value: BaseModel, headers: dict[str, str] | None = None) -> Response:
    return json_response(value.model_dump(mode="json"), headers=headers)
