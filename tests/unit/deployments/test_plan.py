"""What a plan says about every kind of change; both sides are rendered from real configs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from deployments.change import Change, ModelChange, settings_of
from deployments.manifest import Document, render
from deployments.need import Capacity, Need
from deployments.plan import Plan, make_plan
from deployments.plan_view import as_json, summary
from deployments.traffic import Traffic, live_traffic, release_changes
from serve_app.config.load import load_config
from serve_app.domain.control import Standing

SELECTED = ["model=[digits,minilm]"]
WIDE = Capacity((Need(64, 8, 2.0**40),), None)


def document(*overrides: str, build: str = "b1") -> Document:
    return render(load_config([*SELECTED, *overrides]), home="/home", build=build)


def plan(*overrides: str, before: tuple[str, ...] = (), **options: Any) -> Plan:
    """From the default configuration, or one with overrides, to one with others."""
    old = document(*before)
    arguments = {"traffic": live_traffic(settings_of(old)), "capacity": WIDE, **options}
    return make_plan(old, document(*overrides), **arguments)


def model(found: Plan, name: str) -> ModelChange:
    (one,) = [each for each in found.models if each.name == name]
    return one


def version(found: Plan, name: str, version: str) -> Change:
    (one,) = [each for each in model(found, name).versions if each.name == version]
    return one


def part(found: Plan, name: str) -> Change:
    (one,) = [each for each in found.gateway if each.name == name]
    return one


def keys(change: Change) -> list[str]:
    return [each.key for each in change.differences]


def test_the_same_config_changes_nothing() -> None:
    found = plan()
    assert not found.changes
    assert not found.touched
    assert not found.refusals
    assert not found.notices
    assert {each.action for each in found.gateway} == {"unchanged"}
    assert {each.action for each in found.models} == {"unchanged"}


def test_on_an_empty_cluster_everything_is_created() -> None:
    found = make_plan(None, document(), traffic={}, capacity=WIDE)
    assert found.fresh
    assert found.changes
    assert {each.action for each in found.models} == {"created"}
    assert found.renewed == {"ingress", "router", "digits 1", "digits 2", "digits 3", "minilm 1"}
    assert found.resources is not None
    assert found.resources.now == Need()
    assert found.resources.after.cpus == pytest.approx(1.4)


@pytest.mark.parametrize(
    ("override", "label", "key"),
    [
        ("models.digits.versions.2.resources.num_cpus=1", "digits 2", "resources.num_cpus"),
        ("models.digits.versions.2.predictor.network.hidden=9", "digits 2", "predictor"),
        ("models.digits.versions.2.timeouts.load_s=99", "digits 2", "timeouts.load_s"),
        ("models.digits.versions.1.artifact.uri=/tmp/x.skops", "digits 1", "artifact.uri"),
    ],
)
def test_a_version_restarts_and_the_argument_is_named(override: str, label: str, key: str) -> None:
    found = plan(override)
    assert found.renewed == found.touched == {label}
    (difference,) = version(found, *label.split()).differences
    assert difference.key.startswith(key)
    assert difference.before != difference.after
    assert any(label in notice and "no request fails" in notice for notice in found.notices)


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("models.digits.versions.2.replicas={min: 2, max: 4}", ["replicas.min", "replicas.max"]),
        ("models.digits.versions.2.batching.max_rows=16", ["batching.max_rows"]),
        ("models.digits.versions.2.batching.slots_per_replica=3", ["batching.slots_per_replica"]),
        ("models.digits.versions.2.idempotent=false", ["idempotent"]),
    ],
)
def test_scaling_and_batching_change_in_place(override: str, changed: list[str]) -> None:
    found = plan(override)
    assert version(found, "digits", "2").action == "changed"
    assert keys(version(found, "digits", "2")) == changed
    assert not found.renewed
    assert found.touched == {"digits 2"}
    assert not found.notices


def test_new_weights_are_a_change_of_the_release_alone() -> None:
    weights = "[{version: '2', weight: 90}, {version: '3', weight: 10}]"
    found = plan(f"models.digits.release.candidates={weights}")
    assert found.changes
    assert model(found, "digits").release == ("traffic 2: 100% → 2: 90%, 3: 10%",)
    assert not found.touched
    assert model(found, "minilm").action == "unchanged"


def test_a_new_model_and_one_that_goes() -> None:
    found = plan("model=[digits,silero-vad]")
    assert model(found, "silero-vad").action == "created"
    assert model(found, "minilm").action == "removed"
    assert "Model minilm disappears: its requests get 404." in found.notices
    assert not found.refusals
    assert [each.name for each in found.models] == ["digits", "silero-vad", "minilm"]


def test_a_description_changes_in_place_and_a_signature_is_announced() -> None:
    text = plan("models.digits.description=Ziffern")
    assert [each.key for each in model(text, "digits").differences] == ["description"]
    assert not text.renewed
    signature = plan("models.digits.outputs=[{name: logits, datatype: FP64, shape: [-1, 10]}]")
    assert signature.renewed == {"digits 1", "digits 2", "digits 3"}
    assert any("outputs[0].datatype" in notice for notice in signature.notices)


@pytest.mark.parametrize(
    ("override", "notice"),
    [
        ("http.port=8080", "http.port moves from 8000 to 8080: clients must follow."),
        ("grpc.port=9001", "grpc.port moves from 8001 to 9001: gRPC clients must follow."),
        ("metrics.host=::1", "metrics.host moves from 127.0.0.1 to ::1: scrapers must follow."),
        ("metrics.enabled=false", "The metrics listener is switched off."),
    ],
)
def test_listeners_that_move_are_announced(override: str, notice: str) -> None:
    found = plan(override)
    assert notice in found.notices
    assert part(found, "ingress").action == "restarted"
    assert keys(part(found, "ingress")) == [override.split("=")[0]]


def test_ingresses_scale_in_place_and_the_router_restarts_alone() -> None:
    scaled = plan("ingress.replicas=3")
    assert keys(part(scaled, "ingress")) == ["ingress.replicas"]
    assert part(scaled, "ingress").action == "changed"
    assert not scaled.renewed
    router = plan("cluster.router_num_cpus=0.2")
    assert router.renewed == {"router"}
    assert keys(part(router, "router")) == ["cluster.router_num_cpus"]


def test_what_runs_nothing_is_no_change() -> None:
    assert not plan("cluster.ready_timeout_s=7", "cluster.settle_s=3").changes


def test_other_code_restarts_everything_and_says_so_once() -> None:
    found = make_plan(document(), document(build="b2"), traffic={}, capacity=WIDE)
    assert found.code
    assert found.renewed == {"ingress", "router", "digits 1", "digits 2", "digits 3", "minilm 1"}
    assert summary(found) == "code"


def test_a_document_of_another_release_of_the_program_can_be_compared() -> None:
    old = document()
    old["applications"][0]["args"].pop("transport")
    router = old["applications"][0]["deployments"][1]
    for each in router["user_config"]["models"].values():
        each["release"] = {"shares": {"1": 1.0}}
    old["applications"].pop()
    found = make_plan(old, document(), traffic=live_traffic(settings_of(old)), capacity=WIDE)
    assert keys(part(found, "ingress")) == ["transport"]
    assert version(found, "minilm", "1").action == "created"


def test_secrets_are_shown_neither_before_nor_after() -> None:
    secrets = [
        "+models.digits.versions.2.predictor.api_key=marker-4711",
        "+models.digits.versions.2.predictor.options={password: marker-4711}",
        "+models.digits.versions.2.predictor.url='http://u:marker-4711@host/x'",
    ]
    for found in (plan(*secrets), plan(before=tuple(secrets))):
        assert len(version(found, "digits", "2").differences) == 3
        assert "marker" not in json.dumps(as_json(found), default=str)
        assert "marker" not in " ".join(map(str, version(found, "digits", "2").differences))


def without(name: str) -> tuple[str, ...]:
    return (f"~models.digits.versions.{name}",)


def test_a_version_without_traffic_may_go() -> None:
    found = plan(*without("3"))
    assert version(found, "digits", "3").action == "removed"
    assert not found.refusals
    assert "Version 3 of digits disappears: requests for it get 404." in found.notices


@pytest.mark.parametrize(
    ("traffic", "why"),
    [
        (Traffic({"2": 80, "3": 20}), "20 % of the traffic still goes to it"),
        (Traffic({"2": 100}, ruled=frozenset({"3"})), "a rule still sends requests to it"),
        (Traffic({"2": 100}, rollout=frozenset({"2", "3"})), "a rollout of it is going on"),
    ],
)
def test_a_version_with_live_traffic_may_not(traffic: Traffic, why: str) -> None:
    found = plan(*without("3"), traffic={"digits": traffic})
    (refusal,) = found.refusals
    assert "Version 3 of digits" in refusal
    assert why in refusal


def test_live_traffic_counts_and_not_that_of_the_files() -> None:
    release = "models.digits.release.candidates=[{version: '1', weight: 100}]"
    found = plan(*without("2"), release)
    assert any("100 % of the traffic" in refusal for refusal in found.refusals)


def test_what_is_in_force_moves_and_not_what_was_applied() -> None:
    new = "models.digits.release.candidates=[{version: '3', weight: 100}]"
    by_hand = live_traffic(settings_of(document()), {"digits": standing(v1=50, v2=50)})
    found = plan(new, traffic=by_hand)
    assert model(found, "digits").release[0] == "traffic 1: 50%, 2: 50% → 3: 100%"
    assert model(plan(traffic=by_hand), "digits").release == ()
    there = live_traffic(settings_of(document()), {"digits": standing(v3=100)})
    found = plan(new, traffic=there)
    assert model(found, "digits").release == ("the release is in force already",)
    assert found.changes


def test_labels_that_go_are_announced() -> None:
    labels = "models.digits.release.labels={canary: '3', stable: '2'}"
    found = plan("models.digits.release.labels={stable: '2'}", before=(labels,))
    assert found.notices == ("Label canary of digits disappears: requests for it get 404.",)


def standing(rollout: Mapping[str, Any] | None = None, **weights: int) -> Standing:
    candidates = [{"version": v[1:], "weight": weight} for v, weight in weights.items()]
    its = {"model": "digits", "created_at": datetime.now(UTC), "changes": (), "reason": ""}
    revision = {"number": 7, "actor": "ada", "config_digest": "", **its}
    revision["release"] = {"candidates": candidates}
    if rollout is not None:
        state = {"id": 3, "state": "progressing", "step": 0, "steps": (10, 100), "evidence": {}}
        rollout = {**its, **state, "changed_at": datetime.now(UTC), **rollout}
    return Standing.model_validate({"revision": revision, "rollout": rollout})


def test_what_is_in_force_counts_and_not_what_was_applied() -> None:
    old = document()
    moved = live_traffic(settings_of(old), {"digits": standing(v2=70, v3=30)})
    found = plan(*without("3"), traffic=moved)
    assert any("30 % of the traffic still goes to it" in each for each in found.refusals)
    away = live_traffic(settings_of(old), {"digits": standing(v3=100)})
    new = [*without("2"), "models.digits.release.candidates=[{version: '3', weight: 100}]"]
    assert not plan(*new, traffic=away).refusals
    assert plan(*new).refusals


def test_versions_of_a_rollout_may_not_go() -> None:
    going_on = {"origin": {"2": 100, "1": 0}, "target": {"3": 100, "2": 0}}
    live = {"digits": standing(going_on, v2=100)}
    traffic = live_traffic(settings_of(document()), live)["digits"]
    assert traffic.rollout == {"2", "3"}
    assert "a rollout" in traffic.claim("3")


def test_rules_count_by_their_labels_too() -> None:
    settings: Mapping[str, Any] = {
        "release": {
            "candidates": [{"version": "1", "weight": 100}, {"version": "2", "weight": 0}],
            "labels": {"canary": "3"},
            "rules": [{"match": {"tenant": "a"}, "version": "canary"}],
        }
    }
    traffic = live_traffic({"m": settings})["m"]
    assert [bool(traffic.claim(name)) for name in ("1", "2", "3")] == [True, False, True]


def test_releases_differ_in_words_weights_first() -> None:
    before = {"candidates": [{"version": "1", "weight": 100}]}
    after = {
        "candidates": [{"version": "1", "weight": 60}, {"version": "2", "weight": 40}],
        "labels": {"canary": "2"},
    }
    assert list(release_changes(before, after)) == [
        "traffic 1: 100% → 1: 60%, 2: 40%",
        "label canary added: 2",
    ]
    assert list(release_changes({"unknown": 1}, {"unknown": 2})) == ["unknown 1 → 2"]


def test_how_traffic_moves_and_what_may_stop_it() -> None:
    guards = {
        "error_rate": {"max": 0.02},
        "latency": [{"quantile": 0.99, "max_ms": 500, "ratio": 1.5}],
        "disagreement": {"max": 0.1},
        "outcome": {"margin": 0.05},
    }
    canary = {"type": "canary", "steps": [10, 50], "bake_s": 300, "guards": guards}
    same = {
        "mirror": [{"version": "3", "percent": 10}],
        "outcomes": {"kind": "label", "output": "y"},
    }
    before = {"candidates": [{"version": "1", "weight": 100}], **same}
    after = {"candidates": [{"version": "2", "weight": 100}], **same, "strategy": canary}
    assert list(release_changes(before, after)) == [
        "traffic 1: 100% → 2: 100%",
        "by canary: 10% → 50% → 100% of the way, 5 min each; guards: error rate ≤ 2%, "
        "p99 ≤ 500 ms, p99 ≤ 1.5 times the former, disagreement ≤ 10%, "
        "outcomes no worse by more than 0.05",
    ]
    same = {**before, "strategy": canary}
    assert not any("by canary" in each for each in release_changes(before, same))
    assert any(each.startswith("strategy.") for each in release_changes(before, same))


def test_other_problems_are_refusals_as_well() -> None:
    assert plan(problems=["Ray was started with 2"]).refusals == ("Ray was started with 2",)


def test_json_is_plain_and_whole() -> None:
    found = as_json(plan("http.port=8080", "models.digits.versions.2.replicas={min: 2, max: 4}"))
    again = json.loads(json.dumps(found))
    assert again == json.loads(json.dumps(again))
    assert again["gateway"][0]["differences"] == [
        {"key": "http.port", "before": 8000, "after": 8080}
    ]
    assert again["resources"]["peak"]["cpus"] > again["resources"]["after"]["cpus"]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("http.port=8080", "ingress restarted; router restarted"),
        ("models.digits.versions.2.replicas={min: 2, max: 2}", "digits 2 changed"),
        ("model=[digits]", "minilm removed"),
        ("models.digits.description=x", "digits.description"),
    ],
)
def test_a_summary_fits_a_list(override: str, line: str) -> None:
    assert summary(plan(override)) == line
