"""The port `Deployer` as an ingress has it, with threads in place of actors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayActorError, RayTaskError

from deployments import deployer as deployer_module
from deployments.deployer import MAX_ORDERS, ActorDeployer
from serve_app.domain.control import Author
from serve_app.domain.deployer import Wanted
from serve_app.errors import (
    Conflict,
    InvalidInput,
    NotReady,
    Overloaded,
    RevisionNotFound,
    ServeAppError,
)
from tests.unit.deployments.head_node import HeadNode, head_node

ADA = Author(actor="ada", reason="more load")
SCALED = "models.echo.versions.1.replicas={min: 3, max: 3}"


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HeadNode]:
    with head_node(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def deployer(head: HeadNode) -> ActorDeployer:
    return ActorDeployer(head.arguments, head.router())


def wanted(head: HeadNode, *more: str) -> Wanted:
    return Wanted(overrides=(*head.settings, *more))


async def test_plan_apply_history_and_back(head: HeadNode, deployer: ActorDeployer) -> None:
    assert (await deployer.plan(wanted(head)))["fresh"]
    assert (await deployer.apply(wanted(head), ADA)).revision == 1
    head.wait()
    head.wait()
    accepted = await deployer.apply(wanted(head, SCALED), ADA)
    assert (accepted.revision, accepted.plan["changes"]) == (2, True)
    head.wait()
    found = await deployer.deployments(20, None)
    assert [(each.revision, each.outcome, each.actor) for each in found] == [
        (2, "applied", "ada"),
        (1, "applied", "ada"),
    ]
    assert found[0].changes == "echo 1 changed"
    assert (await deployer.rollback(1, ADA)).revision == 3
    head.wait()
    details = await deployer.deployment(3)
    assert details.reason == "rollback to revision 1: more load"
    assert details.config == (await deployer.deployment(1)).config
    again = await deployer.apply(Wanted(config=details.config), ADA)
    assert (again.revision, again.plan["changes"]) == (None, False)
    head.wait()


async def test_one_of_two_wins(head: HeadNode, deployer: ActorDeployer) -> None:
    let_go = threading.Event()
    await deployer.apply(wanted(head), ADA)
    head.wait()
    head.ray.on_put = lambda: (let_go.wait(10), None)[1]
    assert (await deployer.apply(wanted(head, SCALED), ADA)).revision == 2
    for loser in deployer.apply(wanted(head), ADA), deployer.rollback(1, ADA):
        with pytest.raises(Conflict, match=r"ada has been applying revision 2 since \d\d:\d\d:"):
            await loser
        head.wait()
    let_go.set()
    head.wait()
    assert len(head.ray.puts) == 2


async def test_an_unknown_revision_needs_no_process(
    head: HeadNode, deployer: ActorDeployer
) -> None:
    with pytest.raises(RevisionNotFound):
        await deployer.rollback(7, ADA)
    assert not head.launched


async def test_a_wrong_config_is_described(head: HeadNode, deployer: ActorDeployer) -> None:
    with pytest.raises(InvalidInput) as caught:
        await deployer.plan(wanted(head, "http.port=0"))
    assert caught.value.field == "http.port"
    head.wait()


async def test_no_more_than_a_few_at_a_time(
    head: HeadNode, deployer: ActorDeployer, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = asyncio.Event()

    async def never() -> None:
        await let_go.wait()
        raise NotReady("gone")

    monkeypatch.setattr(
        deployer_module, "launch", lambda *_: SimpleNamespace(answer=SimpleNamespace(remote=never))
    )
    plans = [asyncio.create_task(deployer.plan(wanted(head))) for _ in range(MAX_ORDERS)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await deployer.plan(wanted(head))
    let_go.set()
    assert {type(each) for each in await asyncio.gather(*plans, return_exceptions=True)} == {
        NotReady
    }
    with pytest.raises(NotReady):  # there is room again
        await deployer.plan(wanted(head))


@pytest.mark.parametrize(
    ("raised", "expected", "text"),
    [
        (RayActorError(), NotReady, "what plans and applies is away"),
        (RayTaskError("answer", "traceback", Conflict("at work")), Conflict, "at work"),  # type: ignore[no-untyped-call]
        (RayTaskError("answer", "traceback", ServeAppError()), ServeAppError, "Internal error"),  # type: ignore[no-untyped-call]
    ],
)
async def test_what_becomes_of_the_errors_of_an_actor(
    head: HeadNode,
    deployer: ActorDeployer,
    monkeypatch: pytest.MonkeyPatch,
    raised: Exception,
    expected: type[ServeAppError],
    text: str,
) -> None:
    async def fail() -> Any:
        raise raised

    actor = SimpleNamespace(answer=SimpleNamespace(remote=fail))
    monkeypatch.setattr(deployer_module, "launch", lambda *_: actor)
    with pytest.raises(expected) as caught:
        await deployer.plan(wanted(head))
    assert type(caught.value) is expected
    assert text in str(caught.value)


async def test_an_answer_is_not_waited_for_for_ever(
    head: HeadNode, deployer: ActorDeployer, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = SimpleNamespace(answer=SimpleNamespace(remote=lambda: asyncio.sleep(60)))
    monkeypatch.setattr(deployer_module, "launch", lambda *_: actor)
    monkeypatch.setattr(deployer_module, "ORDER_TIMEOUT_S", 0.05)
    with pytest.raises(NotReady, match="does not answer"):
        await deployer.plan(wanted(head))
