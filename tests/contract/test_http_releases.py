"""Releases over a real HTTP listener: labels, rules, sticky arms, fallbacks and mirrors."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
import pytest

from serve_app.domain.arms import IngressReport
from serve_app.domain.inference import BatchResult, InferenceBatch, VersionKey
from serve_app.domain.tensor import BYTES, Array
from serve_app.errors import ModelFailed
from serve_app.telemetry.trace import RequestTrace
from serve_app.testing import FakeGateway, model_route, route_table
from tests.contract.live_http import LiveServer, compute, live_server, spec
from tests.contract.test_http_faults import until

VERSION = "x-model-version"
FALLBACK = "x-model-fallback-from"
BODY = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
EVEN: dict[str, Any] = {"weights": {"1": 50, "2": 50}}


class Versions(FakeGateway):
    """Answers for all versions but the broken ones; a held one waits until it is let go."""

    def __init__(self) -> None:
        super().__init__(compute)
        self.broken: set[str] = set()
        self.held: set[str] = set()
        self.let_go = asyncio.Event()

    async def call(self, key: VersionKey, batch: InferenceBatch, timeout_s: float) -> BatchResult:
        self.batches.append((key, batch))
        if key.version in self.held:
            await self.let_go.wait()
        if key.version in self.broken:
            raise ModelFailed("broken")
        return BatchResult(self.compute(key, batch.inputs), {}, 0.0)

    def asked(self, version: str) -> int:
        return sum(key.version == version for key, _ in self.batches)


class Releases:
    """A server whose release the tests set."""

    def __init__(self, server: LiveServer) -> None:
        self.server = server
        self.gateway = Versions()
        server.dataplane._gateway = self.gateway
        self.http = httpx.Client(base_url=server.url)
        self._revision = 1

    def release(self, name: str = "echo", **release: Any) -> None:
        self._revision += 1
        table = route_table(model_route(name, **release), revision=self._revision)
        self.on_loop(lambda: self.server.dataplane.update(table))
        self.gateway.batches.clear()

    def on_loop(self, work: Any) -> Any:
        async def run() -> Any:
            return work()

        return self.server.run(run())

    def infer(self, path: str = "/v2/models/echo/infer", **headers: str) -> httpx.Response:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post(path, json=BODY, headers=given)

    def versions(self, requests: Sequence[Mapping[str, str]]) -> list[str]:
        return [self.infer(**each).headers[VERSION] for each in requests]

    def report(self) -> IngressReport:
        report = self.on_loop(lambda: self.server.dataplane.arms.take("i", 1))
        assert isinstance(report, IngressReport)
        return report

    def finished(self) -> list[tuple[RequestTrace, int, str]]:
        """What telemetry has heard; a client may have its answer a moment earlier."""
        found: list[tuple[RequestTrace, int, str]] = self.on_loop(
            lambda: list(self.server.telemetry.finished)
        )
        return found

    def wait_for_shadows(self) -> None:
        until(lambda: not self.on_loop(lambda: self.server.dataplane.shadows.out))


@pytest.fixture
def live() -> Iterator[Releases]:
    with live_server() as server:
        releases = Releases(server)
        try:
            yield releases
        finally:
            server._loop.call_soon_threadsafe(releases.gateway.let_go.set)
            releases.http.close()


def test_labels_are_versions_in_the_url(live: Releases) -> None:
    live.release(weights={"1": 100, "2": 0}, labels={"stable": "1", "canary": "2"})
    for name, version in {"stable": "1", "canary": "2", "2": "2"}.items():
        answer = live.infer(f"/v2/models/echo/versions/{name}/infer")
        assert (answer.status_code, answer.headers[VERSION]) == (200, version)
        assert answer.json()["model_version"] == version
        assert live.http.get(f"/v2/models/echo/versions/{name}/ready").json()["ready"]
        assert live.http.get(f"/v2/models/echo/versions/{name}").json()["versions"] == [version]
    unknown = live.infer("/v2/models/echo/versions/nightly/infer")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "version_not_found")
    live.release(weights={"1": 100}, replicas={"2": 0}, labels={"canary": "2"}, fallback="1")
    waiting = live.infer("/v2/models/echo/versions/canary/infer")
    assert (waiting.status_code, waiting.json()["code"]) == (503, "not_ready")


@pytest.mark.parametrize(
    ("sticky", "header", "value"),
    [
        ({"by": "header", "name": "x-user-id"}, "x_user_id", "{}"),
        ({"by": "cookie", "name": "uid"}, "cookie", "theme=dark; uid={}"),
        ({"by": "tenant"}, "x_tenant_id", "{}"),
        ({"by": "api_key"}, "x_api_key", "{}"),
        ({"by": "api_key"}, "authorization", "Bearer {}"),
    ],
)
def test_a_user_keeps_its_version(
    live: Releases, sticky: Mapping[str, str], header: str, value: str
) -> None:
    live.release(**EVEN, sticky=sticky)
    users = [{header: value.format(f"user-{number}")} for number in range(30)]
    first = live.versions(users)
    assert set(first) == {"1", "2"}
    assert live.versions(users) == first
    live.release(**EVEN, sticky={**sticky, "salt": "again"})
    assert live.versions(users) != first


def test_who_says_nothing_is_assigned_by_the_request_id(live: Releases) -> None:
    live.release(**EVEN, sticky={"by": "header", "name": "x-user-id"})
    requests = [{"x_request_id": f"id-{number}"} for number in range(30)]
    first = live.versions(requests)
    assert set(first) == {"1", "2"}
    assert live.versions(requests) == first


def test_rules_come_before_the_weights(live: Releases) -> None:
    live.release(
        weights={"1": 100},
        replicas={"2": 1, "3": 1},
        rules=(
            {"match": {"query": {"cohort": "beta*"}}, "version": "2"},
            {"match": {"header": {"x-debug": "*"}, "tenant": "acme"}, "version": "3"},
        ),
    )
    path = "/v2/models/echo/infer"
    assert live.infer(path).headers[VERSION] == "1"
    assert live.infer(f"{path}?a=b&cohort=beta%2D1").headers[VERSION] == "2"
    assert live.infer(f"{path}?cohort=gamma").headers[VERSION] == "1"
    # Longer than the hot path takes; another route answers, in the same way.
    assert live.infer(f"{path}?{'x' * 400}&cohort=beta").headers[VERSION] == "2"
    assert live.infer(path, x_debug="1").headers[VERSION] == "1"
    assert live.infer(path, x_debug="1", x_tenant_id="acme").headers[VERSION] == "3"
    pinned = live.infer("/v2/models/echo/versions/1/infer?cohort=beta")
    assert pinned.headers[VERSION] == "1"
    arms = [trace.arm for trace, *_ in live.finished()]
    assert arms == ["1", "", "1", "", "1", "", ""]


@pytest.mark.parametrize("query", ["", "?" + "x" * 400], ids=["hot", "routed"])
def test_a_fallback_says_so(live: Releases, query: str) -> None:
    live.release(weights={"2": 100, "1": 0}, fallback="1")
    live.gateway.broken = {"2"}
    answer = live.infer(f"/v2/models/echo/infer{query}")
    assert answer.status_code == 200
    assert (answer.headers[VERSION], answer.headers[FALLBACK]) == ("1", "2")
    trace = live.finished()[-1][0]
    assert (trace.arm, trace.fallback_from, trace.version) == ("2", "2", "1")
    pinned = live.infer("/v2/models/echo/versions/2/infer")
    assert pinned.status_code == 500
    assert FALLBACK not in pinned.headers
    live.gateway.broken = {"1", "2"}
    failed = live.infer(f"/v2/models/echo/infer{query}")
    assert (failed.status_code, failed.json()["code"]) == (500, "model_failed")
    live.gateway.broken = set()
    assert FALLBACK not in live.infer(f"/v2/models/echo/infer{query}").headers
    arm = live.report().arms[VersionKey("echo", "2")]
    assert (arm.requests, arm.faults) == (3, 2)


def test_embeddings_go_by_the_release_as_well(live: Releases) -> None:
    live.release(
        "minilm",
        inputs=(spec("text", BYTES, -1),),
        outputs=(spec("embedding", "FP32", -1, 4), spec("tokens", "INT32", -1)),
        **EVEN,
        sticky={"by": "header", "name": "x-user-id"},
        fallback="1",
    )

    def embed(user: int) -> httpx.Response:
        body = {"model": "minilm", "input": "abc"}
        return live.http.post("/v1/embeddings", json=body, headers={"x-user-id": f"u{user}"})

    first = [embed(user).headers[VERSION] for user in range(20)]
    assert set(first) == {"1", "2"}
    assert [embed(user).headers[VERSION] for user in range(20)] == first
    live.gateway.broken = {"2"}
    answer = embed(first.index("2"))
    assert (answer.headers[VERSION], answer.headers[FALLBACK]) == ("1", "2")


MIRROR: dict[str, Any] = {
    "weights": {"1": 100},
    "replicas": {"3": 1},
    "mirror": ({"version": "3", "percent": 100},),
}


def test_a_shadow_that_never_answers_holds_up_no_client(live: Releases) -> None:
    live.release(**MIRROR)
    live.gateway.held = {"3"}
    for _ in range(30):
        assert live.infer().headers[VERSION] == "1"
    assert not live.gateway.let_go.is_set()
    assert live.gateway.asked("1") == 30
    assert 1 <= live.gateway.asked("3") < 30  # with rows that wait, nothing more is mirrored
    shadows = live.report().shadows[VersionKey("echo", "3")]
    assert shadows.dropped > 0
    assert (shadows.compared, shadows.failed) == (0, 0)
    assert [code for *_, code in live.finished()] == ["ok"] * 30


def test_a_shadow_that_fails_is_heard_of_in_the_report_only(live: Releases) -> None:
    live.release(**MIRROR)
    live.gateway.broken = {"3"}
    for _ in range(10):
        assert live.infer().status_code == 200
    live.wait_for_shadows()
    report = live.report()
    assert report.shadows[VersionKey("echo", "3")].failed > 0
    assert list(report.arms) == [VersionKey("echo", "1")]
    protocols = Counter(trace.protocol for trace, *_ in live.finished())
    assert protocols == {"http": 10}


def test_shadows_that_differ_are_reported_with_both_answers(live: Releases) -> None:
    def other(key: VersionKey, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"x": -inputs["x"]} if key.version == "3" else inputs

    live.gateway.compute = other
    live.release(**MIRROR, compare={"kind": "cosine"})
    answer = live.infer(x_request_id="mine")
    assert answer.json()["outputs"][0]["data"] == [1, 2, 3, 4]
    live.wait_for_shadows()
    (found,) = live.report().disagreements
    assert found.request_id == "mine"
    assert found.differences == {"x": "row 0: [1, 2, 3, 4] against [-1, -2, -3, -4]"}
