"""The number of replicas that a version wants, before Serve's delays and bounds."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.scaling import (
    BACKLOG,
    ONGOING,
    QUEUE_DELAY_MS,
    UTILISATION,
    batches_in_work,
    stats,
)
from serve_app.load_meter import Load

Reported = Mapping[str, Mapping[str, float]]


NODE = f"{BACKLOG}a"


def wanted(
    reported: Reported | None,
    at_handles: float | None = 0.0,
    target: float = 2.0,
    running: int = 0,
) -> tuple[float, Mapping[str, Any]]:
    config = SimpleNamespace(get_target_ongoing_requests=lambda: target)
    context: Any = SimpleNamespace(
        aggregated_metrics=reported,
        total_queued_requests=at_handles,
        config=config,
        current_num_replicas=running,
    )
    return batches_in_work(context)


@pytest.mark.parametrize("reported", [None, {}, {ONGOING: {}, NODE: {}}])
def test_nothing_reported_wants_nothing(reported: Reported | None) -> None:
    assert wanted(reported) == (0.0, {})
    assert wanted(reported, at_handles=None) == (0.0, {})


def test_work_in_the_replicas_adds_up() -> None:
    assert wanted({ONGOING: {"a": 3.0, "b": 1.0}})[0] == 2.0


def test_replicas_of_a_node_hear_of_the_same_queues_those_of_others_of_other_ones() -> None:
    reported = {ONGOING: {"a": 2.0, "b": 2.0}, NODE: {"a": 6.0, "b": 4.0}}
    assert wanted(reported)[0] == pytest.approx((4 + 5) / 2)
    reported[f"{BACKLOG}another"] = {"c": 3.0}
    assert wanted(reported)[0] == pytest.approx((4 + 5 + 3) / 2)


def test_what_a_replica_reports_is_what_is_added_up() -> None:
    reported = {name: {"a": value} for name, value in stats(Load(2.0, 3.0, 0.1, 1.0), "n").items()}
    assert wanted(reported)[0] == pytest.approx((2 + 3) / 2)


def test_a_replica_that_has_not_reported_yet_is_not_idle() -> None:
    assert wanted({}, running=1)[0] == 1.0
    assert wanted({ONGOING: {"a": 0.0}}, running=1)[0] == 0.0
    assert wanted({ONGOING: {"a": 1.0}}, running=2)[0] == 1.0


def test_what_waits_at_handles_counts_too() -> None:
    assert wanted({ONGOING: {"a": 2.0}}, at_handles=4.0)[0] == 3.0


def test_replicas_that_compute_all_the_time_are_too_few() -> None:
    assert wanted({ONGOING: {"a": 1.0}, UTILISATION: {"a": 1.0}})[0] == pytest.approx(1.25)
    assert wanted({UTILISATION: {"a": 0.8, "b": 0.8}})[0] == pytest.approx(2.0)
    assert wanted({UTILISATION: {"a": 0.3, "b": 0.3}})[0] < 1.0
    assert wanted({ONGOING: {"a": 8.0}, UTILISATION: {"a": 1.0}})[0] == 4.0


def test_the_queueing_delay_is_for_people() -> None:
    assert wanted({QUEUE_DELAY_MS: {"a": 900.0}})[0] == 0.0


def test_the_target_is_the_deployments_own() -> None:
    assert wanted({ONGOING: {"a": 8.0}}, target=0.5)[0] == 16.0
