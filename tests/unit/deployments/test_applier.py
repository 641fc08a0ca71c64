"""The actor that carries an order out, without Ray."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments import applier, orders
from deployments.applier import Applier
from deployments.target import own_target
from serve_app.domain.control import Author
from serve_app.domain.deployer import Accepted, Wanted
from serve_app.errors import ClusterError, Conflict, InvalidInput, PlanRefused, ServeAppError
from serve_app.store.deployments import DeploymentLog
from tests.unit.deployments.head_node import HeadNode, head_node

ADA = Author(actor="ada", reason="")
PLAN = Accepted(revision=None, plan={"changes": False})


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HeadNode]:
    with head_node(tmp_path, monkeypatch) as made:
        yield made


def tell_plan(_site: object, tell: Any) -> None:
    tell(PLAN)


def test_an_apply_answers_at_once_and_goes_on(head: HeadNode) -> None:
    let_go = threading.Event()
    head.ray.on_put = lambda: (let_go.wait(10), None)[1]
    actor = Applier(head.arguments, "apply", Wanted(overrides=tuple(head.settings)), ADA)
    assert actor.answer().revision == 1
    log = DeploymentLog(head.arguments.database)
    assert log.history()[0].outcome == "applying"
    assert not head.ended.acquire(blocking=False)
    let_go.set()
    head.wait()
    assert log.history()[0].outcome == "applied"


def test_nobody_has_to_ask(head: HeadNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(orders.VERBS, "plan", tell_plan)
    Applier(head.arguments, "plan")
    head.wait()


def test_an_answer_has_time_to_arrive(head: HeadNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(orders.VERBS, "plan", tell_plan)
    monkeypatch.setattr(applier, "UNASKED_S", 60.0)
    actor = Applier(head.arguments, "plan")
    time.sleep(0.1)
    assert not head.ended.acquire(blocking=False)
    assert actor.answer() == PLAN
    head.wait()


@pytest.mark.parametrize(
    ("error", "expected", "logged"),
    [
        (PlanRefused("no room"), Conflict("no room"), 0),
        (RuntimeError("secret"), ServeAppError(), 1),
    ],
)
def test_a_failure_is_told_and_only_a_fault_of_ours_is_logged(
    head: HeadNode,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    expected: ServeAppError,
    logged: int,
) -> None:
    def fail(_site: object, _tell: object) -> None:
        raise error

    monkeypatch.setattr(applier, "set_up", lambda *_: None)  # logging is the process' own
    monkeypatch.setitem(orders.VERBS, "plan", fail)
    with pytest.raises(type(expected)) as caught:
        Applier(head.arguments, "plan").answer()
    assert caught.value.args == expected.args
    head.wait()
    assert [each.message for each in caplog.records] == ["plan failed"] * logged
    assert caplog.text.count("RuntimeError: secret") == logged


def test_a_wrong_config_is_the_callers_fault(head: HeadNode) -> None:
    with pytest.raises(InvalidInput):
        Applier(head.arguments, "plan", Wanted(overrides=("no.such=1",))).answer()
    head.wait()


def test_the_token_of_the_cluster_that_this_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    with pytest.raises(ClusterError, match="RAY_AUTH_TOKEN"):
        own_target("http://head:8265", tmp_path)
    (tmp_path / "token").write_text("from a file")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert own_target("http://head:8265", tmp_path).token == "from a file"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    assert own_target("http://head:8265", tmp_path).token == "given"
