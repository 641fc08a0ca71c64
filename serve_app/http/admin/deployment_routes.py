"""The routes about whole deployments under `/admin/v1`: plan, apply, history, rollback."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Path, Query, Request, Response

from serve_app.domain.deployer import Accepted, Deployer, DeploymentDetails, Wanted
from serve_app.http.admin import schema
from serve_app.http.admin.request import ACTOR, GUARDED, author_of, read_body
from serve_app.http.openapi import json_body, problems
from serve_app.http.response import json_response, model_response

_ROOT = "/admin/v1"
_DEPLOYMENTS = f"{_ROOT}/deployments"

_SCALED = "models.digits.versions.2.replicas={min: 2, max: 2}"
PLAN_EXAMPLES = {
    "overrides": {
        "summary": "the config files, but two replicas of version 2",
        "value": {"overrides": [_SCALED]},
    },
}
APPLY_EXAMPLES = {
    "apply": {
        "summary": "the config files, but two replicas of version 2",
        "value": {"overrides": [_SCALED], "reason": "more load since Monday"},
    },
    "dry_run": {
        "summary": "only plan",
        "value": {"overrides": [_SCALED], "dry_run": True},
    },
}
ROLLBACK_EXAMPLES = {
    "last": {"summary": "what served before", "value": {"reason": "too slow"}},
    "revision": {"summary": "a revision of the history", "value": {"revision": 1}},
}
_LOCATION = {
    "location": {
        "description": "where the deployment can be followed",
        "required": True,
        "schema": {"type": "string"},
    }
}


def deployment_router(deployer: Deployer, max_json_depth: int) -> APIRouter:
    """All routes about deployments."""
    routes = DeploymentRoutes(deployer, max_json_depth)
    router = APIRouter(tags=["admin"], dependencies=GUARDED)
    routes.add_orders(router)
    routes.add_history(router)
    return router


class DeploymentRoutes:
    """The endpoints, one method each."""

    def __init__(self, deployer: Deployer, max_json_depth: int) -> None:
        self._deployer = deployer
        self._max_json_depth = max_json_depth

    def add_orders(self, router: APIRouter) -> None:
        """What plans, and what changes the cluster."""
        router.post(
            f"{_ROOT}/plan",
            summary="What applying a configuration would change, need and let clients notice",
            response_model=schema.Plan,
            responses=problems(400, 413, 415, 503),
            openapi_extra=json_body(Wanted, PLAN_EXAMPLES),
        )(self.plan)
        router.post(
            f"{_ROOT}/apply",
            summary="Apply a configuration, and undo it if it does not become ready",
            status_code=202,
            response_model=schema.Accepted,
            responses={
                200: {
                    "model": schema.Plan,
                    "description": "The plan: there is nothing to do, or it was a dry run",
                },
                202: {"headers": _LOCATION},
                **problems(400, 409, 413, 415, 503),
            },
            openapi_extra={**json_body(schema.Apply, APPLY_EXAMPLES), "parameters": [ACTOR]},
        )(self.apply)
        router.post(
            f"{_ROOT}/rollback",
            summary="Apply a former deployment again",
            status_code=202,
            response_model=schema.Accepted,
            responses={
                200: {
                    "model": schema.Plan,
                    "description": "The plan: the cluster runs this already",
                },
                202: {"headers": _LOCATION},
                **problems(400, 404, 409, 413, 415, 503),
            },
            openapi_extra={
                **json_body(schema.DeploymentRollback, ROLLBACK_EXAMPLES, required=False),
                "parameters": [ACTOR],
            },
        )(self.rollback)

    def add_history(self, router: APIRouter) -> None:
        """What was deployed."""
        router.get(
            _DEPLOYMENTS,
            summary="Deployments, the newest first",
            response_model=schema.Deployments,
            responses=problems(400, 503),
        )(self.deployments)
        router.get(
            f"{_DEPLOYMENTS}/{{revision}}",
            summary="One deployment: how it goes, or how it ended",
            response_model=DeploymentDetails,
            responses=problems(400, 404, 503),
        )(self.deployment)

    async def plan(self, request: Request) -> Response:
        """Changes nothing. A plan that would be refused says why in `refusals`."""
        wanted = await read_body(request, Wanted, self._max_json_depth)
        return json_response(await self._deployer.plan(wanted))

    async def apply(self, request: Request) -> Response:
        """The answer comes when the plan is recorded; the rest goes on by itself.

        Whoever may do this can run code in the cluster: a configuration names it.
        """
        body = await read_body(request, schema.Apply, self._max_json_depth)
        if body.dry_run:
            return json_response(await self._deployer.plan(body.wanted))
        author = author_of(request, body.reason)
        return _answer(await self._deployer.apply(body.wanted, author))

    async def rollback(self, request: Request) -> Response:
        """As an apply of the configuration of that time."""
        body = await read_body(
            request, schema.DeploymentRollback, self._max_json_depth, required=False
        )
        author = author_of(request, body.reason)
        return _answer(await self._deployer.rollback(body.revision, author))

    async def deployments(
        self,
        limit: int = Query(20, ge=1, le=200),
        before: int | None = Query(None, ge=1, le=schema.MAX_NUMBER),
    ) -> Response:
        """Who deployed what, when and why, from here and from the command line."""
        found = tuple(await self._deployer.deployments(limit, before))
        more = found[-1].revision if len(found) == limit and found[-1].revision > 1 else None
        return model_response(schema.Deployments(deployments=found, before=more))

    async def deployment(self, revision: int = Path(ge=1, le=schema.MAX_NUMBER)) -> Response:
        """`outcome` is `applying` until it has ended; `progress` is what was said meanwhile."""
        return model_response(await self._deployer.deployment(revision))


def _answer(accepted: Accepted) -> Response:
    if accepted.revision is None:
        return json_response(accepted.plan)
    content: dict[str, Any] = {"revision": accepted.revision, "plan": accepted.plan}
    return json_response(content, 202, {"location": f"{_DEPLOYMENTS}/{accepted.revision}"})
