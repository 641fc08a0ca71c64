"""Every request in docs/reference/admin.md, sent as it stands there; the answers are compared.

Behind the routes are the real releases and orders, over SQL. What depends on when and where this
runs is left out of the comparison.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi import FastAPI

from deployments.control import RouterControl
from deployments.deployer import ActorDeployer
from serve_app.config.ingress import RequestLimits
from serve_app.config.listener import HttpConfig
from serve_app.dataplane import DataPlane
from serve_app.domain.arms import Exposure, IngressReport
from serve_app.domain.inference import VersionKey
from serve_app.http.rest import create_rest
from serve_app.http.v2.infer import InferEndpoint
from serve_app.telemetry.sink import NullTelemetry
from serve_app.testing import FakeGateway
from tests.unit.deployments.head_node import HeadNode, head_node
from tests.unit.deployments.test_releases import House

DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "admin.md"
BLOCK = re.compile(r"```http\n(.*?)```", re.DOTALL)
HOME = "/srv/serve-app"
"""What the document calls the home."""
REST = "…"
"""In the document: whatever there is; as a key or as the last entry, whatever else there is."""
VARYING = [
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|\+00:00)"), "TIME"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "CLOCK"),
    (re.compile(r" \.{3,} \d+\.\d s$"), " ... SECONDS"),
    (re.compile(r"\bin \d+\.\d s$"), "in SECONDS"),
]


class Message(NamedTuple):
    """A request or an answer: first line, headers and body."""

    line: str
    headers: Mapping[str, str]
    body: Any


def message(text: str) -> Message:
    head, _, body = text.partition("\n\n")
    line, *fields = head.strip().splitlines()
    headers = dict(field.split(": ", 1) for field in fields)
    return Message(line, headers, json.loads(body) if body.strip() else None)


def conversations() -> Iterator[tuple[Message, Message]]:
    """Requests with their answers, in order."""
    found = [message(each) for each in BLOCK.findall(DOCUMENT.read_text())]
    yield from zip(found[::2], found[1::2], strict=True)


def plain(text: str) -> str:
    for pattern, name in VARYING:
        text = pattern.sub(name, text)
    return text


def fits(written: Any, given: Any) -> bool:
    """Whether an answer, or a part of it, is what the document says."""
    if written == REST:
        return True
    if isinstance(written, dict) and isinstance(given, dict):
        known = written.keys() - {REST}
        whole = known < given.keys() if REST in written else known == given.keys()
        return whole and all(fits(written[key], given[key]) for key in known)
    if isinstance(written, list) and isinstance(given, list):
        known_part = [each for each in written if each != REST]
        whole = len(known_part) < len(given) if REST in written else len(written) == len(given)
        return whole and all(map(fits, known_part, given))
    if isinstance(written, str) and isinstance(given, str):
        return plain(written) == plain(given)
    return bool(written == given)


class Stage:
    """The server, and what happens in the world before some of the requests."""

    def __init__(self, house: House, head: HeadNode) -> None:
        self.house, self.head = house, head
        self.let_go = threading.Event()
        router = head.router(house.releases)
        dataplane, http = DataPlane(FakeGateway(), RequestLimits()), HttpConfig()
        endpoint = InferEndpoint(dataplane, http, RequestLimits(), NullTelemetry())
        ports = RouterControl(router), ActorDeployer(head.arguments, router)
        self.app: FastAPI = create_rest(dataplane, http, NullTelemetry(), endpoint, *ports)
        transport = httpx.ASGITransport(self.app)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://test")

    async def before(self, line: str) -> None:
        """Lets happen what a request is about."""
        if line.startswith("GET /admin/v1/models/digits/rollouts"):
            await self.house.seconds(30, v2=(20, 0), v3=(20, 1))
        elif line == "POST /admin/v1/models/digits/outcomes":
            seen = Exposure("0f8fad5b", VersionKey("digits", "2"), self.house.now, (7,))
            self.house.releases.take(IngressReport("other", 1, {}, {}, exposures=(seen,)))
            await self.house.seconds(1)
        elif line == "POST /admin/v1/plan" and not self.head.ray.puts:
            self.head.apply("maria", "the first one")
        elif line == "POST /admin/v1/apply":
            self.head.ray.on_put = self._start
        elif line.startswith("GET /admin/v1/deployments"):
            self.let_go.set()
            self.head.wait_for_all()

    def _start(self) -> None:
        """A replica that starts is not ready when it is looked at for the first time."""
        self.let_go.wait(10)
        ray, looks = self.head.ray, iter([{"digits@2": "starting"}, {}])

        def look() -> None:
            ray.sick = next(looks, {})

        ray.on_get = look

    async def send(self, request: Message) -> Message:
        """What the server answers."""
        await self.before(request.line)
        method, path = request.line.split()
        body = request.body
        if isinstance(body, dict) and "overrides" in body:  # ports and folders are put in
            body = {**body, "overrides": [*self.head.settings, *body["overrides"]]}
        headers = {"x-request-id": "4f1c", **request.headers}
        answer = await self.client.request(method, path, json=body, headers=headers)
        text = answer.text.replace(str(self.head.home), HOME)
        return Message(f"HTTP/1.1 {answer.status_code}", answer.headers, json.loads(text))


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    house = House(tmp_path / "state.db", monkeypatch)
    await house.releases.open()
    await house.releases.tick()
    with head_node(tmp_path / "home", monkeypatch, "digits") as head:
        made = Stage(house, head)
        async with made.client:
            yield made
        made.let_go.set()
        head.wait_for_all()
    await house.store.close()


async def test_every_request_is_answered_as_it_is_written(stage: Stage) -> None:
    seen = 0
    for request, written in conversations():
        given = await stage.send(request)
        shown = f"{request.line}\n{given.line}\n{json.dumps(given.body, indent=2)}"
        assert given.line == written.line, shown
        for name, value in written.headers.items():
            assert given.headers[name] == value, name
        assert fits(written.body, given.body), shown
        seen += 1
    assert seen > 10


async def test_every_route_is_listed(stage: Stage) -> None:
    text = DOCUMENT.read_text()
    for path, methods in stage.app.openapi()["paths"].items():
        if path.startswith("/admin/v1"):
            for method in methods:
                assert f"`{method.upper()} {path.removeprefix('/admin/v1')}" in text


@pytest.mark.parametrize(
    ("written", "given", "expected"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 1, REST: REST}, {"a": 1, "b": 2}, True),
        ({"a": 2, REST: REST}, {"a": 1, "b": 2}, False),
        ({"a": 1, REST: REST}, {"a": 1}, False),
        ([1], [1, 2], False),
        ([1, REST], [1, 2], True),
        ([1, REST], [1], False),
        ([2, REST], [1, 2], False),
        ("at 2026-01-02T03:04:05Z", "at 2025-11-12T13:14:15.000016Z", True),
        ("Watching ......... 20.2 s", "Watching ......... 0.3 s", True),
        ("a", "b", False),
        (1, 2, False),
    ],
)
def test_what_fits(written: Any, given: Any, expected: bool) -> None:
    assert fits(written, given) is expected
