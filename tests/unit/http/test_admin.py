"""The admin API over a fake of ModelRouter: shapes, preconditions, errors, who and why."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from serve_app.config.ingress import RequestLimits
from serve_app.config.listener import HttpConfig
from serve_app.dataplane import DataPlane
from serve_app.domain.control import Rollout
from serve_app.domain.release import Release
from serve_app.http.app import create_app
from serve_app.testing import FakeControl, FakeGateway, RecordingTelemetry, route_table

MODEL = "/admin/v1/models/echo"
LIMITS = RequestLimits()


def release(**weights: int) -> Release:
    return Release.model_validate(
        {"candidates": [{"version": v[1:], "weight": w} for v, w in weights.items()]}
    )


class Bench:
    def __init__(self, *, admin: bool = True) -> None:
        self.control = FakeControl(echo=release(v1=100, v2=0))
        dataplane = DataPlane(FakeGateway(), LIMITS)
        dataplane.update(route_table())
        app = create_app(
            dataplane, HttpConfig(admin=admin), LIMITS, RecordingTelemetry(), self.control
        )
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    async with made.client:
        yield made


def problem(response: httpx.Response, status: int, code: str) -> Any:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found = response.json()
    assert found["code"] == code
    return found


async def test_the_release_has_its_number_as_etag(bench: Bench) -> None:
    response = await bench.client.get(f"{MODEL}/release")
    assert response.headers["etag"] == '"1"'
    assert response.json()["release"]["candidates"][0] == {"version": "1", "weight": 100}


async def test_what_is_in_force_for_all_models_at_once(bench: Bench) -> None:
    (found,) = (await bench.client.get("/admin/v1/models")).json()["models"]
    assert found["revision"]["model"] == "echo"
    assert found["rollout"] is None


async def test_a_change_makes_a_revision_with_author_and_reason(bench: Bench) -> None:
    body = {"release": release(v1=90, v2=10).model_dump(mode="json"), "reason": "try 2"}
    response = await bench.client.put(
        f"{MODEL}/release", json=body, headers={"x-actor": "ada", "if-match": '"1"'}
    )
    assert response.status_code == 200, response.text
    assert response.headers["etag"] == '"2"'
    assert response.json()["actor"] == "ada"
    assert response.json()["reason"] == "try 2"
    history = (await bench.client.get(f"{MODEL}/revisions")).json()
    assert [each["number"] for each in history["revisions"]] == [2, 1]
    assert history["before"] is None


async def test_history_has_pages(bench: Bench) -> None:
    for weight in (10, 20, 30):
        body = {"weights": {"1": 100 - weight, "2": weight}}
        assert (await bench.client.post(f"{MODEL}/traffic", json=body)).status_code == 200
    first = (await bench.client.get(f"{MODEL}/revisions?limit=3")).json()
    assert [each["number"] for each in first["revisions"]] == [4, 3, 2]
    url = f"{MODEL}/revisions?limit=3&before={first['before']}"
    rest = (await bench.client.get(url)).json()
    assert [each["number"] for each in rest["revisions"]] == [1]
    assert rest["before"] is None


@pytest.mark.parametrize("verb", ["put", "traffic", "rollback"])
async def test_another_revision_in_force_is_a_conflict(bench: Bench, verb: str) -> None:
    headers = {"if-match": '"7"'}
    if verb == "put":
        body: dict[str, Any] = {"release": release(v1=100).model_dump(mode="json")}
        response = await bench.client.put(f"{MODEL}/release", json=body, headers=headers)
    else:
        body = {"weights": {"2": 100}} if verb == "traffic" else {"revision": 1}
        response = await bench.client.post(f"{MODEL}/{verb}", json=body, headers=headers)
    assert problem(response, 412, "revision_conflict")["retryable"] is False


@pytest.mark.parametrize("given", ["", "7", '"x"', '"1", "2"', '"' + "9" * 30 + '"'])
async def test_if_match_must_be_an_etag(bench: Bench, given: str) -> None:
    response = await bench.client.post(
        f"{MODEL}/traffic", json={"weights": {"1": 100}}, headers={"if-match": given}
    )
    assert problem(response, 400, "malformed_request")["field"] == "If-Match"


async def test_a_star_matches_whatever_there_is(bench: Bench) -> None:
    response = await bench.client.post(
        f"{MODEL}/traffic", json={"weights": {"1": 100}}, headers={"if-match": "*"}
    )
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("weights", "field"),
    [({"1": 50, "2": 40}, None), ({"1": -1, "2": 101}, "candidates"), ({}, "weights")],
)
async def test_wrong_weights_are_named(
    bench: Bench, weights: dict[str, int], field: str | None
) -> None:
    response = await bench.client.post(f"{MODEL}/traffic", json={"weights": weights})
    found = problem(response, 400, "invalid_input")
    assert field is None or found["field"].startswith(field)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"weights": 3}', b'{"weights": {"1": 100}, "more": 1}', b'"text"'],
)
async def test_bodies_that_make_no_sense(bench: Bench, body: bytes) -> None:
    response = await bench.client.post(f"{MODEL}/traffic", content=body)
    assert response.status_code == 400
    assert response.json()["code"] in ("invalid_input", "malformed_request")


@pytest.mark.parametrize("given", ["", "x" * 300, "ad\x07a", "ädä"])
async def test_an_actor_is_plain_text_or_anonymous(bench: Bench, given: str) -> None:
    await bench.client.post(
        f"{MODEL}/traffic",
        json={"weights": {"1": 100}},
        headers=[(b"x-actor", given.encode("latin-1"))],
    )
    assert bench.control.authors[-1].actor == "anonymous"


async def test_rollback_to_a_revision_and_to_none(bench: Bench) -> None:
    await bench.client.post(f"{MODEL}/traffic", json={"weights": {"1": 50, "2": 50}})
    back = await bench.client.post(f"{MODEL}/rollback", json={})
    assert back.json()["release"]["candidates"][0]["weight"] == 100
    missing = await bench.client.post(f"{MODEL}/rollback", json={"revision": 99})
    problem(missing, 404, "revision_not_found")


ROLLOUT = Rollout(
    id=5,
    model="echo",
    state="progressing",
    reason="step 1 of 2 bakes",
    step=0,
    steps=(10, 100),
    origin={"1": 100},
    target={"2": 100},
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    changed_at=datetime(2026, 1, 1, tzinfo=UTC),
    evidence={"error_rate": {"new": [0, 10]}},
)


async def test_steering(bench: Bench) -> None:
    nothing = await bench.client.post(f"{MODEL}/rollout/pause")
    assert "no rollout" in problem(nothing, 409, "conflict")["detail"]
    bench.control.rollout = ROLLOUT
    paused = await bench.client.post(f"{MODEL}/rollout/pause", json={"reason": "lunch"})
    assert paused.json()["state"] == "paused"
    assert bench.control.authors[-1].reason == "lunch"
    listed = (await bench.client.get(f"{MODEL}/rollouts")).json()["rollouts"]
    assert listed[0]["evidence"] == {"error_rate": {"new": [0, 10]}}
    problem(await bench.client.post(f"{MODEL}/rollout/explode"), 400, "invalid_input")


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (f"{MODEL}/outcomes", {}),
        ("/v2/models/echo/outcomes", {}),
        ("/admin/v1/outcomes", {"model": "echo"}),
    ],
)
async def test_outcomes_are_counted_once(bench: Bench, path: str, more: dict[str, str]) -> None:
    outcomes = [{"request_id": "a", "label": 3}, {"request_id": "b", "number": 0.5}]
    body = {"outcomes": outcomes, **more}
    first = await bench.client.post(path, json=body)
    again = await bench.client.post(path, json=body)
    assert [each["status"] for each in first.json()["receipts"]] == ["counted", "counted"]
    assert [each["status"] for each in again.json()["receipts"]] == ["duplicate", "duplicate"]


@pytest.mark.parametrize(
    "outcome",
    [
        {"request_id": "a"},
        {"request_id": "a", "label": 1, "number": 2},
        {"request_id": "", "label": 1},
        {"request_id": "x" * 129, "label": 1},
        {"label": 1},
        {"request_id": "a", "label": "seven"},
        {"request_id": "a", "reward": None},
    ],
)
async def test_outcomes_that_make_no_sense(bench: Bench, outcome: dict[str, Any]) -> None:
    response = await bench.client.post(f"{MODEL}/outcomes", json={"outcomes": [outcome]})
    assert problem(response, 400, "invalid_input")["field"].startswith("outcomes")


async def test_no_more_than_a_thousand_outcomes(bench: Bench) -> None:
    many = [{"request_id": str(n), "label": 1} for n in range(1001)]
    response = await bench.client.post(f"{MODEL}/outcomes", json={"outcomes": many})
    problem(response, 400, "invalid_input")


@pytest.mark.parametrize("what", ["release", "revisions", "rollouts", "report", "disagreements"])
async def test_unknown_models(bench: Bench, what: str) -> None:
    problem(await bench.client.get(f"/admin/v1/models/nothing/{what}"), 404, "model_not_found")


async def test_the_admin_api_can_be_switched_off_and_outcomes_stay() -> None:
    bench = Bench(admin=False)
    async with bench.client:
        problem(await bench.client.get(f"{MODEL}/release"), 404, "route_not_found")
        body = {"outcomes": [{"request_id": "a", "label": 3}]}
        assert (await bench.client.post("/v2/models/echo/outcomes", json=body)).status_code == 200
