"""Releases on a real cluster under load: canaries, rollbacks, faults, bad input, shadows (issue 4).

One cluster for all; every test begins by putting a plain release in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc.aio as triton_grpc
from sklearn.datasets import load_digits

from tests.integration.cluster import Cluster
from tests.integration.load import Load, Question

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

GUARDS = {"error_rate": {"max": 0.05}, "latency": [{"quantile": 0.99, "max_ms": 2000}]}
CANARY = {"type": "canary", "steps": [20, 50], "bake_s": 3, "min_samples": 20, "guards": GUARDS}
IMAGES = load_digits().data

# Versions that are worse than the others.
SMALL = "replicas: {min: 1, max: 1}, timeouts: {request_s: 20}, resources: {num_cpus: 0.1}"
WEIGHTS = "${oc.env:SERVE_APP_HOME}/models/digits/2/model.safetensors"
FAULTY = (
    "+models.digits.versions.4={platform: pytorch, predictor: "
    "{_target_: serve_app.predictors.torch_module.TorchModule, "
    "network: {_target_: tests.integration.faulty.FaultyMlp}}, "
    f"artifact: {{uri: '{WEIGHTS}'}}, {SMALL}}}"
)
ECHO = (
    f"{{platform: test, predictor: {{_target_: serve_app.predictors.echo.EchoModel, %s}}, {SMALL}}}"
)
FRAGILE = f"+models.echo.versions.3={ECHO % 'fail_on: 77'}"
SLOW = f"+models.echo.versions.4={ECHO % 'delay_s: 0.4'}"


def digit(number: int) -> Question:
    """Asks for the logits of an image."""
    image = IMAGES[number % len(IMAGES)].tolist()
    tensor = {"name": "x", "shape": [1, 64], "datatype": "FP32", "data": image}
    return Question(tensor, lambda data: len(data) == 10)


def when(document: dict[str, Any]) -> float:
    """Seconds since the epoch at which a revision was made."""
    return datetime.fromisoformat(document["created_at"]).timestamp()


def candidates(**weights: int) -> list[dict[str, Any]]:
    return [{"version": version[1:], "weight": weight} for version, weight in weights.items()]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    target = Cluster(
        tmp_path_factory.mktemp("releases"),
        overrides=[
            "model=[digits,echo]",
            FAULTY,
            FRAGILE,
            SLOW,
            "models.digits.release.candidates=[{version: '1', weight: 100}]",
            "ingress.replicas=2",
            "cluster.num_cpus=4",
            "database.timeout_s=2",
            "log.level=INFO",
        ],
    )
    target.run("up")
    yield target
    target.run("down")
    assert not target.processes()


class Admin:
    """The admin API, as a program uses it."""

    def __init__(self, address: str) -> None:
        self.http = httpx.AsyncClient(base_url=f"http://{address}", timeout=30, trust_env=False)

    async def get(self, model: str, what: str) -> Any:
        answer = await self.http.get(f"/admin/v1/models/{model}/{what}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def put(self, model: str, **release: Any) -> Any:
        """Puts a release in force."""
        answer = await self.http.put(f"/admin/v1/models/{model}/release", json={"release": release})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def rollout(self, model: str) -> Any:
        found = (await self.get(model, "rollouts?limit=1"))["rollouts"]
        return found[0] if found else None

    async def until(self, model: str, *states: str, step: int = 0, within_s: float = 45.0) -> Any:
        """Waits until the newest rollout is in one of these states, and at this step or later."""
        deadline, found = time.monotonic() + within_s, None
        while time.monotonic() < deadline:
            with contextlib.suppress(AssertionError):  # ModelRouter or its database may be away
                found = await self.rollout(model)
                if found["state"] in states and found["step"] >= step:
                    return found
            await asyncio.sleep(0.2)
        raise AssertionError(f"not {states}: {found}")

    async def weights(self, model: str) -> dict[str, int]:
        release = (await self.get(model, "release"))["release"]
        return {each["version"]: each["weight"] for each in release["candidates"] if each["weight"]}


@pytest.fixture
async def admin(house: Cluster) -> AsyncIterator[Admin]:
    made = Admin(house.http)
    async with made.http:
        await made.put("digits", candidates=candidates(v1=100))
        await made.put("echo", candidates=candidates(v1=100))
        yield made


async def infer(
    client: httpx.AsyncClient, number: int, headers: dict[str, str] | None = None, at: str = ""
) -> httpx.Response:
    tensor = {"name": "x", "shape": [1, 1], "datatype": "INT64", "data": [number]}
    return await client.post(
        f"/v2/models/echo{at}/infer", json={"inputs": [tensor]}, headers=headers
    )


async def test_a_canary_is_promoted_without_a_failed_request(house: Cluster, admin: Admin) -> None:
    first = (await admin.get("digits", "release"))["number"]
    wanted = [
        "models.digits.release.candidates=[{version: '2', weight: 100}]",
        f"+models.digits.release.strategy={json.dumps(CANARY).replace(chr(34), '')}",
    ]
    async with Load(house.http, rate=60, path="/v2/models/digits/infer", ask=digit) as load:
        await asyncio.sleep(1)
        done = await asyncio.to_thread(house.run, "apply", overrides=wanted)
        ended = await admin.until("digits", "promoted", "rolled_back", "paused")
        await asyncio.sleep(2)
    assert ended["state"] == "promoted", ended["reason"]
    assert f"digits: rollout {ended['id']} is p" in done.stdout  # pending or progressing
    answers = load.answers
    assert answers.right == answers.sent
    found = (await admin.get("digits", "revisions?limit=20"))["revisions"]
    moves = [each for each in reversed(found) if each["number"] > first]
    shares = [{c["version"]: c["weight"] for c in each["release"]["candidates"]} for each in moves]
    assert [each["2"] for each in shares] == [0, 20, 50, 100], moves
    assert [each["actor"] for each in moves] == ["config", "rollout", "rollout", "rollout"]
    times = [time.time(), *(when(each) for each in reversed(moves))][::-1]
    for share, begin, end in zip(shares, times[:-1], times[1:], strict=True):
        # Tables need a moment to arrive; requests on their way go by the former one.
        got = Counter(version for at, version in answers.served if begin + 0.5 < at < end - 0.2)
        if got.total() > 20:
            assert got["2"] / got.total() == pytest.approx(share["2"] / 100, abs=0.2)
    assert await admin.weights("digits") == {"2": 100}


async def test_a_broken_version_is_rolled_back_by_itself(house: Cluster, admin: Admin) -> None:
    strategy = {**CANARY, "steps": [50], "bake_s": 60}
    async with Load(house.http, rate=50, path="/v2/models/digits/infer", ask=digit) as load:
        await asyncio.sleep(1)
        await admin.put("digits", candidates=candidates(v4=100), strategy=strategy)
        ended = await admin.until("digits", "rolled_back", "promoted", "paused")
        await asyncio.sleep(3)
    answers = load.answers
    assert ended["state"] == "rolled_back"
    assert len(answers.failed) == len(answers.wrong) > 0
    assert {version for _, version in answers.failed} == {"4"}
    assert answers.right + len(answers.failed) == answers.sent
    first, last = answers.failed[0][0], answers.failed[-1][0]
    print(
        f"\nfrom the first failure to the last: {last - first:.1f} s, {len(answers.failed)} of them"
    )
    assert last - first < 15  # issue 4
    after = [version for at, version in answers.served if at > last + 1]
    assert set(after) == {"1"}
    assert len(after) > 50
    assert await admin.weights("digits") == {"1": 100}
    assert "requests failed" in ended["reason"]
    broken = [each for each in ended["evidence"]["error_rate"]["limits"] if each["broken"]]
    assert broken
    done = await asyncio.to_thread(house.run, "rollout", "digits", settings=False)
    assert f"rollout {ended['id']}, rolled back: error rate of version 4" in done.stdout
    assert "BROKEN" in done.stdout


async def test_a_router_that_is_killed_in_a_step_goes_on(house: Cluster, admin: Admin) -> None:
    strategy = {**CANARY, "steps": [50], "bake_s": 5}
    async with Load(house.http, rate=50, path="/v2/models/digits/infer", ask=digit) as load:
        await admin.put("digits", candidates=candidates(v2=100), strategy=strategy)
        before = await admin.until("digits", "progressing")
        (router,) = house.replicas("ModelRouter")
        router.kill()
        await asyncio.sleep(1)
        ended = await admin.until("digits", "promoted", "rolled_back", "paused", step=1)
    assert ended["state"] == "promoted", ended["reason"]
    assert ended["id"] == before["id"]
    assert load.answers.right == load.answers.sent
    assert await admin.weights("digits") == {"2": 100}


async def test_a_model_that_nobody_asks_waits_for_samples(admin: Admin) -> None:
    strategy = {**CANARY, "steps": [50], "bake_s": 5}
    await admin.put("digits", candidates=candidates(v2=100), strategy=strategy)
    before = await admin.until("digits", "progressing")
    await asyncio.sleep(13)  # above the time after which silent ingresses are a reason to pause
    after = await admin.rollout("digits")
    assert (after["id"], after["state"]) == (before["id"], "progressing"), after["reason"]


async def test_a_locked_database_stops_changes_and_nothing_else(
    house: Cluster, admin: Admin
) -> None:
    strategy = {**CANARY, "steps": [50], "bake_s": 2}
    other = sqlite3.connect(house.home / "serve_app.db", isolation_level=None)
    async with Load(house.http, rate=50, path="/v2/models/digits/infer", ask=digit) as load:
        await admin.put("digits", candidates=candidates(v2=100), strategy=strategy)
        before = await admin.until("digits", "progressing")
        other.execute("BEGIN IMMEDIATE")
        try:
            path = "/admin/v1/models/echo/traffic"
            refused = await admin.http.post(path, json={"weights": {"1": 50, "2": 50}})
            done = await asyncio.to_thread(
                house.run, "traffic", "echo", "1=50", "2=50", check=False, settings=False
            )
            live = await admin.get("echo", "release")
            await asyncio.sleep(4)
        finally:
            other.execute("ROLLBACK")
            other.close()
        ended = await admin.until("digits", "promoted", "rolled_back", "paused", step=1)
    assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
    assert done.returncode == 1
    assert "database" in done.stderr
    assert live["release"]["candidates"] == candidates(v1=100)
    assert (ended["id"], ended["state"]) == (before["id"], "promoted"), ended["reason"]
    assert load.answers.right == load.answers.sent
    await asyncio.to_thread(house.run, "traffic", "echo", "1=50", "2=50", settings=False)
    assert await admin.weights("echo") == {"1": 50, "2": 50}


async def test_bad_input_changes_nothing(house: Cluster, admin: Admin) -> None:
    def one(version: str, **more: Any) -> dict[str, Any]:
        return {"release": {"candidates": [{"version": version, "weight": 100}], **more}}

    path = "/admin/v1/models/echo/release"
    before = await admin.get("echo", "release")
    for body, where in (
        (one("9"), "release.candidates.0.version"),
        ({"release": {"candidates": candidates(v1=60, v2=30)}}, "release"),
        (one("1", labels={"canary": "9"}), "release.labels.canary"),
        (
            one("1", rules=[{"match": {"tenant": "x"}, "version": "canary"}]),
            "release.rules.0.version",
        ),
        (one("1", fallback="9"), "release.fallback"),
        (one("1", no_such=1), "release.no_such"),
    ):
        answer = await admin.http.put(path, json=body)
        assert (answer.status_code, answer.json()["field"]) == (400, where), answer.text
    etag = f'"{before["number"]}"'
    first = await admin.http.put(path, json=one("2"), headers={"if-match": etag})
    late = await admin.http.put(path, json=one("1"), headers={"if-match": etag})
    assert first.status_code == 200
    assert (late.status_code, late.json()["code"]) == (412, "revision_conflict")
    assert await admin.weights("echo") == {"2": 100}
    for arguments, code, words in (
        (("1=50", "9=50"), 1, "not a version"),
        (("1=50", "2=40"), 64, "sum up to 100"),
        (("1=50", "1=50"), 64, "each version once"),
    ):
        done = await asyncio.to_thread(
            house.run, "traffic", "echo", *arguments, check=False, settings=False
        )
        assert done.returncode == code, done.stderr
        assert words in done.stderr
    done = await asyncio.to_thread(house.run, "pause", "echo", check=False, settings=False)
    assert done.returncode == 1
    assert "no rollout" in done.stderr
    unknown = await admin.http.get("/admin/v1/models/nothing/release")
    assert unknown.status_code == 404


async def test_two_changes_at_once(admin: Admin) -> None:
    number = (await admin.get("echo", "release"))["number"]
    wanted = [{"weights": {"1": 100 - share, "2": share}} for share in (10, 20)]
    answers = await asyncio.gather(
        *(
            admin.http.post(
                "/admin/v1/models/echo/traffic", json=body, headers={"if-match": f'"{number}"'}
            )
            for body in wanted
        )
    )
    assert sorted(each.status_code for each in answers) == [200, 412]
    (winner,) = [body for body, each in zip(wanted, answers, strict=True) if each.is_success]
    assert await admin.weights("echo") == winner["weights"]


async def test_who_is_sent_where(house: Cluster, admin: Admin) -> None:
    await admin.put(
        "echo",
        candidates=candidates(v1=50, v2=50),
        sticky={"by": "header", "name": "x-user-id"},
        rules=[{"match": {"header": {"x-cohort": "beta*"}}, "version": "canary"}],
        labels={"canary": "4"},
    )
    await asyncio.sleep(1)
    users = [f"user-{n}" for n in range(40)]
    seen: dict[str, set[str]] = {user: set() for user in users}
    for _ in range(4):  # each time new connections, which the kernel shares out
        async with httpx.AsyncClient(base_url=f"http://{house.http}", timeout=20) as client:
            headers = [{"x-user-id": user} for user in users]
            for user, answer in zip(
                users,
                await asyncio.gather(*(infer(client, 1, each) for each in headers)),
                strict=True,
            ):
                seen[user].add(answer.headers["x-model-version"])
    over_grpc = triton_grpc.InferenceServerClient(house.grpc)
    tensor = triton_grpc.InferInput("x", [1, 1], "INT64")
    tensor.set_data_from_numpy(np.array([[1]], np.int64))
    for user in users:
        answer = await over_grpc.infer("echo", [tensor], headers={"x-user-id": user})
        seen[user].add(answer.get_response().model_version)
    beta = await over_grpc.infer("echo", [tensor], headers={"x-cohort": "beta-7"})
    named = await over_grpc.infer("echo", [tensor], model_version="canary")
    await over_grpc.close()
    assert {each.get_response().model_version for each in (beta, named)} == {"4"}
    assert all(len(versions) == 1 for versions in seen.values()), seen
    assert set().union(*seen.values()) == {"1", "2"}
    async with httpx.AsyncClient(base_url=f"http://{house.http}", timeout=20) as client:
        beta = await infer(client, 1, {"x-cohort": "beta-1", "x-user-id": "user-1"})
        named = await infer(client, 1, at="/versions/canary")
        unknown = await infer(client, 1, at="/versions/no-such")
    assert beta.headers["x-model-version"] == named.headers["x-model-version"] == "4"
    assert unknown.status_code == 404


async def test_the_fallback_answers_for_a_broken_version(admin: Admin) -> None:
    await admin.put("echo", candidates=candidates(v3=100), fallback="1")
    await asyncio.sleep(1)
    fine, saved = await infer(admin.http, 5), await infer(admin.http, 77)
    pinned = await infer(admin.http, 77, at="/versions/3")
    assert fine.headers["x-model-version"] == "3"
    assert "x-model-fallback-from" not in fine.headers
    assert (saved.status_code, saved.headers["x-model-version"]) == (200, "1")
    assert saved.headers["x-model-fallback-from"] == "3"
    assert pinned.status_code == 500


async def test_shadows_are_never_felt(house: Cluster, admin: Admin) -> None:
    def ask(number: int) -> Question:
        tensor = {"name": "x", "shape": [2, 1], "datatype": "INT64", "data": [number, 77]}
        return Question(tensor, lambda data: data == [number, 77])

    raising, slow = {"version": "3", "percent": 100}, {"version": "4", "percent": 100}
    async with Load(house.http, rate=60, ask=ask) as load:
        await asyncio.sleep(3)
        quiet = len(load.answers.latencies_s)
        await admin.put("echo", candidates=candidates(v1=100), mirror=[raising, slow])
        await asyncio.sleep(6)
    answers = load.answers
    assert answers.right == answers.sent
    assert set(answers.versions) == {"1"}
    # A client that waited for a shadow would need the 0.4 s of the slow one.
    assert sorted(answers.latencies_s[quiet:])[len(answers.latencies_s[quiet:]) // 2] < 0.2
    scraped = (await admin.http.get(house.metrics)).text
    shadows = [line for line in scraped.splitlines() if line.startswith("serve_app_shadows_total{")]
    counted = {(field(each, "model_version"), field(each, "result")) for each in shadows}
    assert {("3", "failed"), ("4", "agreed")} <= counted, shadows


def field(line: str, label: str) -> str:
    """The value of a label in a line of metrics."""
    return line.split(f'{label}="', 1)[1].split('"', 1)[0]
