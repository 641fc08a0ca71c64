"""plan → apply → rollback on a real cluster, under load (issue 4, points 6 and 7)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.integration.cluster import Cluster
from tests.integration.load import Load

pytestmark = [pytest.mark.ray, pytest.mark.timeout(280)]

PREDICTOR = "predictor: {_target_: serve_app.predictors.echo.EchoModel, %s}"
SHAPE = "resources: {num_cpus: 0.05}, replicas: {min: 1, max: 1}, timeouts: {drain_s: 10}"
NEW = f"+models.echo.versions.3={{platform: test, {PREDICTOR % 'delay_s: 0.001'}, {SHAPE}}}"
SHARES = "models.echo.release.candidates=[{version: '1', weight: 60}, {version: '3', weight: 40}]"
SCALED = "models.echo.versions.2.replicas={min: 3, max: 3}"


@pytest.fixture(autouse=True)
def as_it_was(cluster: Cluster) -> Iterator[None]:
    """Applies the plain settings again after each test: traffic first, then the versions."""
    yield
    cluster.run("up", overrides=[NEW])
    cluster.run("up")


def plan(cluster: Cluster, *overrides: str) -> tuple[int, dict[str, Any]]:
    done = cluster.run("plan", "--json", overrides=overrides, check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, found


def revisions(cluster: Cluster) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(cluster.run("history", "--json").stdout)
    return rows


def model_processes(cluster: Cluster) -> set[int]:
    return {p.pid for p in cluster.processes() if "ray::Serve" in " ".join(p.cmdline())}


def test_a_plan_of_nothing(cluster: Cluster) -> None:
    code, found = plan(cluster)
    assert code == 0
    assert not found["changes"]
    assert found["resources"]["total"]["cpus"] == 4
    before = len(revisions(cluster))
    done = cluster.run("apply")
    assert "No changes" in done.stdout
    assert len(revisions(cluster)) == before


async def test_a_new_version_and_its_traffic_under_load(cluster: Cluster) -> None:
    before = model_processes(cluster)
    code, found = await asyncio.to_thread(plan, cluster, NEW, SHARES, SCALED)
    assert code == 2
    (echo,) = [each for each in found["models"] if each["name"] == "echo"]
    assert {each["name"]: each["action"] for each in echo["versions"]} == {
        "1": "unchanged",
        "2": "changed",
        "3": "created",
    }
    assert not found["refusals"]
    async with Load(cluster.http, rate=60) as load:
        overrides = [NEW, SHARES, SCALED]
        done = await asyncio.to_thread(cluster.run, "apply", overrides=overrides)
        load.answers.versions.clear()
        await asyncio.sleep(2)
        shared = dict(load.answers.versions)
        refused = await asyncio.to_thread(cluster.run, "apply", check=False)
        again = await asyncio.to_thread(cluster.run, "apply", overrides=overrides)
        await asyncio.to_thread(cluster.run, "apply", overrides=[NEW])
        await asyncio.to_thread(cluster.run, "apply")
    assert "echo 3" in done.stdout
    assert before <= model_processes(cluster)
    assert set(shared) == {"1", "3"}
    assert refused.returncode == 1
    assert "40 % of the traffic still goes to it" in refused.stderr
    assert "No changes" in again.stdout
    assert not load.answers.wrong
    assert not load.answers.refused
    assert load.answers.right == load.answers.sent


async def test_a_constructor_that_raises_moves_no_traffic(cluster: Cluster) -> None:
    broken = NEW.replace("delay_s: 0.001", "no_such_argument: 1")
    async with Load(cluster.http, rate=40) as load:
        overrides = [broken, SHARES]
        done = await asyncio.to_thread(cluster.run, "apply", overrides=overrides, check=False)
    assert done.returncode == 1
    assert "echo 3" in done.stderr
    assert "no_such_argument" in done.stderr
    assert "former deployment serves" in done.stdout
    assert load.answers.right == load.answers.sent
    assert set(load.answers.versions) == {"1"}
    assert revisions(cluster)[0]["outcome"] == "failed"
    assert plan(cluster)[0] == 0


async def test_an_artifact_with_another_hash_moves_no_traffic(cluster: Cluster) -> None:
    digest = f"models.digits.versions.3.artifact.sha256={'0' * 64}"
    done = await asyncio.to_thread(cluster.run, "apply", overrides=[digest], check=False)
    assert done.returncode == 1
    assert "digits 3" in done.stderr
    assert "0" * 64 in done.stderr
    assert plan(cluster)[0] == 0


async def test_a_version_that_dies_after_it_was_ready_is_undone(cluster: Cluster) -> None:
    doomed = NEW.replace("delay_s: 0.001", "exit_on: -9")
    url = f"http://{cluster.http}/v2/models/echo/versions/3/infer"
    poison = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "INT64", "data": [-9]}]}
    overrides = [doomed, SHARES, "cluster.settle_s=15"]
    async with Load(cluster.http, rate=40) as load:
        command = asyncio.to_thread(cluster.run, "apply", overrides=overrides, check=False)
        apply = asyncio.create_task(command)
        async with httpx.AsyncClient(timeout=5) as client:
            while not apply.done():
                with contextlib.suppress(httpx.HTTPError):
                    await client.post(url, json=poison)
                await asyncio.sleep(0.2)
        done = await apply
    assert done.returncode == 1
    assert "echo 3" in done.stderr
    assert "former deployment serves" in done.stdout
    assert load.answers.right == load.answers.sent
    assert set(load.answers.versions) == {"1"}  # traffic has never moved
    assert plan(cluster)[0] == 0


def test_two_at_once(cluster: Cluster) -> None:
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cluster.run, "apply", overrides=[SCALED], check=False)
        second = pool.submit(cluster.run, "apply", overrides=[NEW], check=False)
        both = [first.result(), second.result()]
    assert sorted(each.returncode for each in both) == [0, 1]
    (loser,) = [each for each in both if each.returncode]
    assert "at work" in loser.stderr


REPLACED = ("http.idle_timeout_s=6", "cluster.settle_s=5")
"""Restarts every ingress, and ModelRouter; long enough for others to come meanwhile."""


class Admin:
    """Whole deployments over /admin/v1."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        base = f"http://{cluster.http}/admin/v1"
        self.http = httpx.AsyncClient(base_url=base, timeout=90, trust_env=False)

    async def post(self, what: str, *overrides: str, **more: str) -> httpx.Response:
        body = {"overrides": [*self._cluster.settings(), *overrides], **more}
        return await self.http.post(f"/{what}", json=body, headers={"x-actor": "ada"})

    async def end_of(self, accepted: httpx.Response) -> dict[str, Any]:
        """The deployment, once it has ended; nobody answers while ingress and router change."""
        assert accepted.status_code == 202, accepted.text
        url = f"http://{self._cluster.http}{accepted.headers['location']}"
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = await self.http.get(url)
                if answer.status_code != 503 and answer.json()["outcome"] != "applying":
                    found: dict[str, Any] = answer.json()
                    return found
            await asyncio.sleep(0.5)


async def test_the_same_over_http(cluster: Cluster) -> None:
    code, printed = await asyncio.to_thread(plan, cluster, NEW, *REPLACED)
    admin = Admin(cluster)
    async with admin.http:
        assert (await admin.post("plan", NEW, *REPLACED)).json() == printed
        accepted = await admin.post("apply", NEW, *REPLACED, reason="a try")
        rival, command = await asyncio.gather(
            admin.post("apply"), asyncio.to_thread(cluster.run, "apply", check=False)
        )
        applied = await admin.end_of(accepted)
        nothing = await admin.post("apply", NEW, *REPLACED)
        back = await admin.http.post("/rollback", json={"reason": "enough"})
        rolled_back = await admin.end_of(back)
        refused = await admin.post("apply", "models.echo.versions.2.resources.num_cpus=9")
        wrong = await admin.post("plan", "http.port=0")
    assert code == 2
    assert rival.status_code == 409
    who = f"ada has been applying revision {applied['revision']} since"
    assert who in rival.json()["detail"]
    assert (command.returncode, who in command.stderr) == (1, True)
    assert (applied["outcome"], applied["actor"], applied["reason"]) == ("applied", "ada", "a try")
    assert any(line["text"].startswith("echo 3") for line in applied["progress"])
    assert (nothing.status_code, nothing.json()["changes"]) == (200, False)
    assert rolled_back["outcome"] == "applied"
    assert rolled_back["reason"].endswith(": enough")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert "Does not fit" in refused.json()["detail"]
    assert (wrong.status_code, wrong.json()["field"]) == (400, "http.port")
    assert plan(cluster)[0] == 0
    assert revisions(cluster)[0]["revision"] == rolled_back["revision"]


async def test_an_apply_over_http_that_is_killed_holds_up_nobody(cluster: Cluster) -> None:
    admin = Admin(cluster)
    async with admin.http:
        accepted = await admin.post("apply", NEW)
        (process,) = cluster.replicas("ray::Applier")
        process.kill()
        process.wait(10)
        again = await admin.post("apply", NEW)
        if again.status_code != 200:  # what Serve was told it does all the same
            assert (await admin.end_of(again))["outcome"] == "applied"
        killed = await admin.end_of(accepted)
    assert killed["reason"] in ("recorded later", "its command ended without a result")
    deadline = time.monotonic() + 20
    while cluster.replicas("ray::Applier"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)


def test_rollback_and_history(cluster: Cluster) -> None:
    newest = revisions(cluster)[0]["revision"]
    cluster.run("apply", overrides=[SCALED])
    done = cluster.run("rollback")
    assert f"Revision {newest} serves again." in done.stdout
    rows = revisions(cluster)
    assert rows[0]["reason"] == f"rollback to revision {newest}"
    assert [row["changes"] for row in rows[:2]] == ["echo 2 changed"] * 2
    assert plan(cluster)[0] == 0


def test_what_can_never_fit_is_refused_at_once(cluster: Cluster) -> None:
    began = time.monotonic()
    wide = "models.echo.versions.2.resources.num_cpus=9"
    done = cluster.run("apply", overrides=[wide], check=False)
    assert done.returncode == 1
    assert "Does not fit: needs" in done.stderr
    assert time.monotonic() - began < 60
    code, _ = plan(cluster, wide)
    assert code == 1
