"""Reports of the arms: numbered, delivered once, and repeated as they are."""

from __future__ import annotations

import asyncio

import pytest

from deployments import arm_reports
from deployments.arm_reports import ArmReports
from serve_app.arms import ArmStatistics
from serve_app.domain.arms import IngressReport
from serve_app.domain.inference import VersionKey
from serve_app.rollout import Intake

KEY = VersionKey("digits", "1")


class Post:
    """Delivers reports, or fails to."""

    def __init__(self) -> None:
        self.arms = ArmStatistics()
        self.delivered: list[IngressReport] = []
        self.counted: list[IngressReport] = []
        self.error: Exception | None = None
        self.loses_answers = False
        self.hangs = False
        self.reports = ArmReports(self.arms, self.send, self.counted.append)

    async def send(self, report: IngressReport) -> None:
        if self.hangs:
            await asyncio.sleep(60)
        if self.error is not None and not self.loses_answers:
            raise self.error
        self.delivered.append(report)
        if self.error is not None:
            raise self.error

    @property
    def requests(self) -> list[tuple[int, int]]:
        return [(each.sequence, each.arms[KEY].requests) for each in self.delivered]


async def test_each_report_has_a_number_and_what_is_new() -> None:
    post = Post()
    await post.reports.report()
    assert post.delivered == []  # there was nothing to say
    for requests in (2, 3):
        for _ in range(requests):
            post.arms.count(KEY, 0.01)
        await post.reports.report()
    assert post.requests == [(1, 2), (2, 3)]
    assert post.counted == post.delivered
    assert len({each.ingress for each in post.delivered}) == 1
    assert post.delivered[0].ingress != Post().reports._ingress


async def test_an_ingress_without_traffic_says_that_it_is_there() -> None:
    post = Post()
    for _ in range(7):
        await post.reports.report()
    assert [(each.sequence, each.arms) for each in post.delivered] == [(1, {}), (2, {})]
    post.arms.count(KEY, 0.01)
    for _ in range(3):
        await post.reports.report()
    assert [each.sequence for each in post.delivered] == [1, 2, 3]


async def test_what_could_not_be_delivered_is_sent_again_as_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    post = Post()
    post.error = ConnectionError("the router is away")
    for _ in range(3):
        post.arms.count(KEY, 0.01)
        await post.reports.report()
    assert post.delivered == []
    assert caplog.text.count("no report") == 1
    post.error = None
    await post.reports.report()
    await post.reports.report()
    assert post.requests == [(1, 1), (2, 2)]
    assert post.counted == post.delivered


async def test_a_delivery_that_nobody_confirms_counts_once() -> None:
    post = Post()
    post.arms.count(KEY, 0.01)
    post.error, post.loses_answers = TimeoutError(), True
    await post.reports.report()
    post.arms.count(KEY, 0.01)
    post.error = None
    await post.reports.report()
    await post.reports.report()
    assert post.requests == [(1, 1), (1, 1), (2, 1)]
    intake = Intake()
    taken = [intake.take(each.ingress, each.sequence) for each in post.delivered]
    assert taken == [True, False, True]


async def test_a_router_that_does_not_answer_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arm_reports, "DELIVERY_S", 0.01)
    post = Post()
    post.hangs = True
    post.arms.count(KEY, 0.01)
    await post.reports.report()
    post.hangs = False
    await post.reports.report()
    assert post.requests == [(1, 1)]


async def test_reports_go_out_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arm_reports, "REPORT_S", 0.001)
    post = Post()
    task = asyncio.create_task(post.reports.run())
    post.arms.count(KEY, 0.01)
    async with asyncio.timeout(5.0):
        while not post.delivered:  # noqa: ASYNC110  # it sleeps as well
            await asyncio.sleep(0.001)
    task.cancel()
