"""The routes about whole deployments, over a fake of what carries them out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from serve_app.config.ingress import RequestLimits
from serve_app.config.listener import HttpConfig
from serve_app.dataplane import DataPlane
from serve_app.domain.deployer import DeploymentDetails
from serve_app.errors import Conflict, InvalidInput, NotReady, ServeAppError
from serve_app.http.admin import schema
from serve_app.http.app import create_app
from serve_app.testing import FakeControl, FakeDeployer, FakeGateway, RecordingTelemetry
from tests.unit.http.test_admin import problem

ROOT = "/admin/v1"
ONE: dict[str, Any] = {"overrides": ["http.port=1"]}
OTHER: dict[str, Any] = {"config": {"env": "local"}}


class Bench:
    def __init__(self, *, admin: bool = True) -> None:
        self.deployer = FakeDeployer()
        limits = RequestLimits()
        app = create_app(
            DataPlane(FakeGateway(), limits),
            HttpConfig(admin=admin),
            limits,
            RecordingTelemetry(),
            FakeControl(),
            self.deployer,
        )
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")

    async def post(self, what: str, body: Any = None, **headers: str) -> httpx.Response:
        return await self.client.post(f"{ROOT}/{what}", json=body, headers=headers)

    async def get(self, what: str) -> httpx.Response:
        return await self.client.get(f"{ROOT}/{what}")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    async with made.client:
        yield made


async def test_a_plan_changes_nothing(bench: Bench) -> None:
    bodies: list[dict[str, Any]] = [ONE, OTHER, {"overrides": []}]
    for body in bodies:
        answer = await bench.post("plan", body)
        assert answer.status_code == 200
        assert schema.Plan.model_validate(answer.json()).fresh
    assert (await bench.get("deployments")).json() == {"deployments": [], "before": None}


async def test_an_apply_says_where_to_follow_it(bench: Bench) -> None:
    answer = await bench.post("apply", {**ONE, "reason": "more load"}, **{"x-actor": "ada"})
    assert answer.status_code == 202
    assert answer.headers["location"] == f"{ROOT}/deployments/1"
    assert schema.Accepted.model_validate(answer.json()).revision == 1
    found = await bench.client.get(answer.headers["location"])
    details = DeploymentDetails.model_validate(found.json())
    assert (details.actor, details.reason, details.outcome) == ("ada", "more load", "applied")
    assert details.config == ONE
    assert details.progress


async def test_nothing_to_do_and_a_dry_run_give_the_plan(bench: Bench) -> None:
    dry = await bench.post("apply", {**ONE, "dry_run": True})
    assert (dry.status_code, dry.json()["changes"]) == (200, True)
    await bench.post("apply", ONE)
    again = await bench.post("apply", ONE)
    assert (again.status_code, again.json()["changes"]) == (200, False)
    assert "location" not in again.headers
    assert len((await bench.get("deployments")).json()["deployments"]) == 1


async def test_rollback_with_and_without_a_number(bench: Bench) -> None:
    for body in (ONE, OTHER):
        await bench.post("apply", body)
    back = await bench.post("rollback", {"reason": "too slow"}, **{"x-actor": "grace"})
    assert (back.status_code, back.headers["location"]) == (202, f"{ROOT}/deployments/3")
    assert bench.deployer.authors[-1].actor == "grace"
    assert bench.deployer.authors[-1].reason == "too slow"
    assert (await bench.get("deployments/3")).json()["config"] == ONE
    assert (await bench.post("rollback", {"revision": 2})).json()["revision"] == 4
    assert (await bench.client.post(f"{ROOT}/rollback")).status_code == 202
    problem(await bench.post("rollback", {"revision": 77}), 404, "revision_not_found")


async def test_history_has_pages(bench: Bench) -> None:
    for port in range(4):
        await bench.post("apply", {"overrides": [f"http.port={port}"]})
    first = (await bench.get("deployments?limit=3")).json()
    assert [each["revision"] for each in first["deployments"]] == [4, 3, 2]
    rest = (await bench.get(f"deployments?limit=3&before={first['before']}")).json()
    assert [each["revision"] for each in rest["deployments"]] == [1]
    assert rest["before"] is None


@pytest.mark.parametrize("what", ["plan", "apply", "rollback"])
@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (Conflict("ada has been applying revision 3 since 10:33:12"), 409, "conflict"),
        (InvalidInput("must be at least 1", "http.port"), 400, "invalid_input"),
        (NotReady("the cluster does not answer"), 503, "not_ready"),
        (ServeAppError("secret"), 500, "internal"),
    ],
)
async def test_refusals(
    bench: Bench, what: str, refusal: ServeAppError, status: int, code: str
) -> None:
    await bench.post("apply", ONE)
    await bench.post("apply", OTHER)
    bench.deployer.refusal = refusal
    found = problem(await bench.post(what, {} if what == "rollback" else ONE), status, code)
    assert "secret" not in found["detail"]
    assert found.get("field") == refusal.field


@pytest.mark.parametrize("what", ["plan", "apply"])
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, None),
        ({"overrides": [], "config": {}}, None),
        ({"overrides": "http.port=1"}, "overrides"),
        ({"overrides": [1]}, "overrides[0]"),
        ({"config": []}, "config"),
        ({"overrides": [], "more": 1}, "more"),
        ({"overrides": ["x"] * 1001}, "overrides"),
    ],
)
async def test_bodies_that_make_no_sense(
    bench: Bench, what: str, body: dict[str, Any], field: str | None
) -> None:
    assert problem(await bench.post(what, body), 400, "invalid_input").get("field") == field


@pytest.mark.parametrize(
    "path",
    [
        "deployments/0",
        "deployments/x",
        f"deployments/{2**31}",
        f"deployments?before={2**31}",
        "deployments?limit=201",
        "models/echo/revisions?before=99999999999999999999",
    ],
)
async def test_numbers_out_of_range(bench: Bench, path: str) -> None:
    problem(await bench.get(path), 400, "invalid_input")


async def test_an_unknown_revision(bench: Bench) -> None:
    found = problem(await bench.get("deployments/5"), 404, "revision_not_found")
    assert found["detail"] == "the deployment has no revision 5"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://[", "", "file://"])
@pytest.mark.parametrize("what", ["apply", "models/echo/traffic"])
async def test_other_web_pages_are_kept_out(bench: Bench, what: str, origin: str) -> None:
    problem(await bench.post(what, ONE, origin=origin), 400, "bad_request")
    assert not bench.deployer.authors


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8000", "http://localhost", "http://[::1]:1"])
async def test_our_own_page_may_try_it_out(bench: Bench, origin: str) -> None:
    assert (await bench.post("apply", ONE, origin=origin)).status_code == 202


async def test_it_is_switched_off_with_the_admin_api() -> None:
    bench = Bench(admin=False)
    async with bench.client:
        for what in ("plan", "apply", "rollback"):
            problem(await bench.post(what, ONE), 404, "route_not_found")
        problem(await bench.get("deployments"), 404, "route_not_found")
