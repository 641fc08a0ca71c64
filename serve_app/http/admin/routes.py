"""The routes about releases under `/admin/v1`, and the one of `/v2` that takes outcomes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ValidationError

from serve_app.domain.control import Control, Revision, Rollout, Steering
from serve_app.http.admin import schema
from serve_app.http.admin.request import (
    ACTOR,
    GUARDED,
    IF_MATCH,
    author_of,
    expected_revision,
    invalid,
    read_body,
)
from serve_app.http.openapi import json_body, problems
from serve_app.http.response import json_response, model_response

_MODELS = "/admin/v1/models"
_MODEL = f"{_MODELS}/{{model}}"
_CHANGES = problems(400, 404, 409, 412, 413, 415, 503)
_READS = problems(404, 503)


def admin_router(control: Control, max_json_depth: int) -> APIRouter:
    """All routes of the admin API."""
    routes = AdminRoutes(control, max_json_depth)
    router = APIRouter(tags=["admin"], dependencies=GUARDED)
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
ROLLBACK_EXAMPLES = {
    "last": {"summary": "before the last change", "value": {"reason": "too slow"}},
    "revision": {"summary": "a revision of the history", "value": {"revision": 1}},
}
REASON_EXAMPLES = {"reason": {"summary": "why", "value": {"reason": "looks good"}}}
OUTCOME_EXAMPLES = {
    "label": {
        "summary": "the true class of an answer",
        "value": {"outcomes": [{"request_id": "4f1c", "label": 7}]},
    },
}
MODEL_OUTCOME_EXAMPLES = {
    "label": {
        "summary": "the true class of an answer",
        "value": {"model": "digits", "outcomes": [{"request_id": "4f1c", "label": 7}]},
    },
}


class AdminRoutes:
    """The endpoints, one method each."""

    def __init__(self, control: Control, max_json_depth: int) -> None:
        self._control = control
        self._max_json_depth = max_json_depth

    def add_releases(self, router: APIRouter) -> None:
        """The live releases, and the history of one."""
        router.get(
            _MODELS,
            summary="Where the requests of each model go now",
            response_model=schema.Standings,
            responses=problems(503),
        )(self.standings)
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
            openapi_extra=_changing(schema.Rollback, ROLLBACK_EXAMPLES),
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
                **json_body(schema.Reason, REASON_EXAMPLES, required=False),
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
        router.post(
            "/admin/v1/outcomes",
            summary="The same, with the model in the body",
            response_model=schema.Receipts,
            responses=problems(400, 404, 413, 415, 503),
            openapi_extra=json_body(schema.ModelOutcomeReport, MODEL_OUTCOME_EXAMPLES),
        )(self.record_of)
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

    async def standings(self) -> Response:
        """The revision in force and the rollout that is going on, model by model."""
        return model_response(schema.Standings(models=tuple(await self._control.standings())))

    async def release(self, model: str) -> Response:
        """Which versions take traffic now, and how; the ETag is the number of the revision."""
        return _revision(await self._control.release(model))

    async def change(self, model: str, request: Request) -> Response:
        """New weights go by the release's strategy; everything else is in force at once."""
        body = await read_body(request, schema.ReleaseChange, self._max_json_depth)
        author = author_of(request, body.reason)
        return _revision(
            await self._control.change(model, body.release, author, expected_revision(request))
        )

    async def traffic(self, model: str, request: Request) -> Response:
        """The release of now with other weights, at once; a rollout that is going on ends."""
        body = await read_body(request, schema.TrafficChange, self._max_json_depth)
        now = await self._control.release(model)
        try:
            release = now.release.with_weights(body.weights)
        except ValidationError as exc:
            raise invalid(exc, type(now.release), body.weights) from exc
        # Between reading and writing nobody else may have changed what is kept.
        expected = expected_revision(request)
        return _revision(
            await self._control.change(
                model,
                release,
                author_of(request, body.reason),
                now.number if expected is None else expected,
                at_once=True,
            )
        )

    async def rollback(self, model: str, request: Request) -> Response:
        """Ends a rollout that is going on; makes a new revision equal to the earlier one."""
        body = await read_body(request, schema.Rollback, self._max_json_depth)
        author = author_of(request, body.reason)
        return _revision(
            await self._control.rollback(model, body.revision, author, expected_revision(request))
        )

    async def revisions(
        self,
        model: str,
        limit: int = Query(20, ge=1, le=200),
        before: int | None = Query(None, ge=1, le=schema.MAX_NUMBER),
    ) -> Response:
        """Who changed what, when and why."""
        found = tuple(await self._control.revisions(model, limit, before))
        more = found[-1].number if len(found) == limit and found[-1].number > 1 else None
        return model_response(schema.Revisions(revisions=found, before=more))

    async def rollouts(self, model: str, limit: int = Query(20, ge=1, le=200)) -> Response:
        """Each with its state, the reason for it, and the evidence."""
        found = tuple(await self._control.rollouts(model, limit))
        return model_response(schema.Rollouts(rollouts=found))

    async def steer(self, model: str, verb: Steering, request: Request) -> Response:
        """Promote goes to the wanted weights at once; rollback returns to those of before."""
        body = await read_body(request, schema.Reason, self._max_json_depth, required=False)
        author = author_of(request, body.reason)
        return model_response(await self._control.steer(model, verb, author))

    async def record(self, model: str, request: Request) -> Response:
        """The request id is that of the answer (`x-request-id`); each counts once."""
        body = await read_body(request, schema.OutcomeReport, self._max_json_depth)
        receipts = await self._control.record(model, body.outcomes)
        return model_response(schema.Receipts(receipts=tuple(receipts)))

    async def record_of(self, request: Request) -> Response:
        """For tools that report for several models; see the route of one model."""
        body = await read_body(request, schema.ModelOutcomeReport, self._max_json_depth)
        receipts = await self._control.record(body.model, body.outcomes)
        return model_response(schema.Receipts(receipts=tuple(receipts)))

    async def report(self, model: str) -> Response:
        """Exposures, outcomes, intervals and a plain verdict."""
        return json_response(await self._control.report(model))

    async def disagreements(self, model: str, limit: int = Query(20, ge=1, le=200)) -> Response:
        """Both answers, shortened."""
        found = tuple(await self._control.disagreements(model, limit))
        return model_response(schema.Disagreements(disagreements=found))


def _changing(body: type[BaseModel], examples: dict[str, Any] | None = None) -> dict[str, Any]:
    return {**json_body(body, examples), "parameters": [IF_MATCH, ACTOR]}


def _revision(revision: Revision) -> Response:
    return model_response(revision, headers={"etag": f'"{revision.number}"'})
