"""CPUs, GPUs and memory: what fits, what fits in turns, what never fits."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.capacity import capacity
from deployments.need import GIB, Capacity, Need, loads, weigh


def document(**deployments: tuple[float, dict[str, Any]]) -> dict[str, Any]:
    """Applications by name: CPUs of a replica, and options."""
    return {
        "applications": [
            {
                "name": name,
                "deployments": [
                    {
                        "name": "D",
                        "ray_actor_options": {"num_cpus": cpus},
                        "max_surge_percent": 100,
                        **options,
                    }
                ],
            }
            for name, (cpus, options) in deployments.items()
        ]
    }


def cluster(*cpus: float, used: float | None = None) -> Capacity:
    return Capacity(tuple(Need(each) for each in cpus), None if used is None else Need(used))


def restarts(*names: str) -> frozenset[tuple[str, str]]:
    return frozenset((name, "D") for name in names)


def test_a_new_version_needs_its_replicas() -> None:
    before = document(a=(1, {"num_replicas": 2}))
    after = document(a=(1, {"num_replicas": 2}), b=(0.5, {"num_replicas": 3}))
    found = weigh(loads(before, after, {}, restarts()), cluster(4))
    assert (found.now.cpus, found.after.cpus, found.peak.cpus) == (2, 3.5, 3.5)
    assert found.free.cpus == 2
    assert not found.shortage
    assert not found.warning


def test_what_is_missing_is_named() -> None:
    after = document(a=(1.8, {"num_replicas": 4}))
    found = weigh(loads(None, after, {}, restarts()), cluster(4))
    assert found.shortage == "Does not fit: needs 3.2 CPUs more than the cluster can give."


def test_what_others_use_is_not_ours_to_take() -> None:
    before, after = document(a=(1, {})), document(a=(1, {}), b=(1, {}))
    assert not weigh(loads(before, after, {}, restarts()), cluster(4, used=3)).shortage
    assert weigh(loads(before, after, {}, restarts()), cluster(4, used=4)).shortage


def test_a_replica_must_fit_on_one_node() -> None:
    found = weigh(loads(None, document(a=(3, {})), {}, restarts()), cluster(2, 2))
    assert "one replica of a@D needs 3 CPUs" in found.shortage


def test_old_and_new_side_by_side() -> None:
    same = document(a=(1, {"num_replicas": 2}))
    roomy = weigh(loads(same, same, {}, restarts("a")), cluster(4))
    assert (roomy.after.cpus, roomy.peak.cpus, roomy.warning) == (2, 4, "")
    in_turns = weigh(loads(same, same, {}, restarts("a")), cluster(3))
    assert not in_turns.shortage
    assert "1 CPU more" in in_turns.warning
    never = weigh(loads(same, same, {}, restarts("a")), cluster(2))
    assert "its first new replica needs 1 CPU more beside the old ones" in never.shortage


def test_what_is_removed_makes_room_for_a_restart() -> None:
    before = document(a=(1, {}), b=(1, {}))
    found = weigh(loads(before, document(a=(1, {})), {}, restarts("a")), cluster(2))
    assert not found.shortage
    assert found.peak.cpus == 3
    assert found.warning


@pytest.mark.parametrize(("running", "after"), [(0, 1), (3, 3), (9, 4)])
def test_autoscaling_keeps_what_it_has_within_the_new_bounds(running: int, after: int) -> None:
    scaled = document(a=(1, {"autoscaling_config": {"min_replicas": 1, "max_replicas": 4}}))
    found = weigh(loads(scaled, scaled, {("a", "D"): running}, restarts()), cluster(16))
    assert (found.now.cpus, found.after.cpus) == (running, after)


def test_gpus_and_declared_memory_count() -> None:
    after = document(a=(0, {"ray_actor_options": {"num_gpus": 0.5, "memory": 2 * GIB}}))
    found = weigh(loads(None, after, {}, restarts()), cluster(4))
    assert "0.5 GPUs and 2.0 GiB memory more" in found.shortage


def test_sums_of_tenths_do_not_fail_by_their_last_digit() -> None:
    after = document(**{str(n): (0.1, {}) for n in range(10)})
    assert not weigh(loads(None, after, {}, restarts()), cluster(1)).shortage


@pytest.mark.parametrize(
    ("need", "text"),
    [
        (Need(1), "1 CPU"),
        (Need(0.25), "0.25 CPUs"),
        (Need(), "0 CPUs"),
        (Need(2, 1), "2 CPUs and 1 GPU"),
        (Need(0, 0.5), "0.5 GPUs"),
    ],
)
def test_needs_read_as_words(need: Need, text: str) -> None:
    assert str(need) == text


def test_ray_s_account_of_nodes_that_live() -> None:
    nodes = [
        {"state": "ALIVE", "resources_total": {"CPU": 4.0, "GPU": 1.0, "memory": 8.0}},
        {"state": "DEAD", "resources_total": {"CPU": 64.0}},
    ]
    found = capacity(nodes, {"CPU": (0.5, 4.0)})
    assert found.nodes == (Need(4, 1, 8),)
    assert found.used == Need(0.5)
    assert capacity(nodes, None).used is None


def test_old_replicas_that_may_go_first_need_no_room_beside_them() -> None:
    gpu = {"ray_actor_options": {"num_gpus": 1}}
    before = document(a=(0, {**gpu, "max_surge_percent": 0}))
    wider = document(a=(0, {"ray_actor_options": {"num_gpus": 2}, "max_surge_percent": 0}))
    one = Capacity((Need(4, 1),), None)
    found = weigh(loads(before, before, {}, restarts("a")), one)
    assert (found.shortage, found.peak.gpus) == ("", 1)
    assert (
        "beside the old ones"
        in weigh(loads(document(a=(0, gpu)), document(a=(0, gpu)), {}, restarts("a")), one).shortage
    )
    two = Capacity((Need(4, 2),), None)
    assert weigh(loads(before, wider, {}, restarts("a")), two).peak.gpus == 2


def test_a_part_of_the_replicas_is_surged_by_whole_ones() -> None:
    same = document(a=(1, {"num_replicas": 3, "max_surge_percent": 25}))
    assert weigh(loads(same, same, {}, restarts("a")), cluster(8)).peak.cpus == 4


def test_one_that_may_sleep_is_loaded_once() -> None:
    scaling = {"min_replicas": 0, "max_replicas": 2, "initial_replicas": 1}
    sleeper = document(a=(1, {"autoscaling_config": scaling}))
    changed = document(a=(1, {"autoscaling_config": {**scaling, "max_replicas": 3}}))
    asleep = {("a", "D"): 0}
    assert weigh(loads(None, sleeper, {}, restarts()), cluster(4)).after.cpus == 1
    assert weigh(loads(sleeper, sleeper, asleep, restarts()), cluster(4)).after.cpus == 0
    assert weigh(loads(sleeper, sleeper, asleep, restarts("a")), cluster(4)).after.cpus == 1
    assert weigh(loads(sleeper, changed, asleep, restarts()), cluster(4)).after.cpus == 1
