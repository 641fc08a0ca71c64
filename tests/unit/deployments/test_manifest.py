"""The Serve document: pure, complete, and stable where stability spares a restart."""

from __future__ import annotations

import os
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from deployments.app import build_gateway, build_model
from deployments.arguments import GatewayArguments, ReplicaArguments
from deployments.manifest import Document, render, to_yaml
from serve_app.config.load import load_config

SELECTED = ["model=[digits,minilm]"]


def document(*overrides: str) -> Document:
    return render(load_config([*SELECTED, *overrides]), home="/home", build="b1")


def application(rendered: Document, name: str) -> dict[str, Any]:
    (found,) = (each for each in rendered["applications"] if each["name"] == name)
    return dict(found)


def restarts(before: Document, after: Document) -> set[str]:
    """Applications whose code version changes: what Serve restarts replicas for."""
    keys = ("import_path", "runtime_env", "args")
    return {
        each["name"]
        for each in after["applications"]
        if any(application(before, each["name"])[key] != each[key] for key in keys)
    }


def test_one_application_per_version_and_nothing_routes_by_prefix() -> None:
    rendered = document()
    names = [each["name"] for each in rendered["applications"]]
    assert names == ["gateway", "digits@1", "digits@2", "digits@3", "minilm@1"]
    assert rendered["proxy_location"] == "Disabled"
    assert all(each["route_prefix"] is None for each in rendered["applications"])


def test_the_same_config_gives_the_same_text() -> None:
    assert to_yaml(document()) == to_yaml(document())
    assert yaml.safe_load(to_yaml(document())) == document()
    assert "&id" not in to_yaml(document())


@pytest.mark.parametrize(
    ("override", "restarted"),
    [
        ("models.digits.versions.2.replicas={min: 2, max: 4}", set()),
        ("models.digits.versions.2.batching.max_rows=16", set()),
        ("models.digits.release.candidates=[{version: '1', weight: 100}]", set()),
        ("ingress.replicas=3", set()),
        ("models.digits.versions.2.timeouts.load_s=99", {"digits@2"}),
        ("http.max_body_bytes=123456", {"gateway"}),
    ],
)
def test_a_change_restarts_only_what_it_must(override: str, restarted: set[str]) -> None:
    assert restarts(document(), document(override)) == restarted


def test_other_code_restarts_everything() -> None:
    config = load_config(SELECTED)
    before, after = (render(config, home="/home", build=build) for build in ("b1", "b2"))
    assert restarts(before, after) == {each["name"] for each in after["applications"]}


def test_scaling_becomes_serve_s_autoscaling() -> None:
    (fixed,) = application(document(), "digits@2")["deployments"]
    assert fixed["num_replicas"] == 1
    assert "autoscaling_config" not in fixed
    changed = document("models.digits.versions.2.replicas={min: 2, max: 4, target: 3}")
    (scaled,) = application(changed, "digits@2")["deployments"]
    assert "num_replicas" not in scaled
    assert scaled["autoscaling_config"]["min_replicas"] == 2
    assert scaled["autoscaling_config"]["max_replicas"] == 4
    assert scaled["autoscaling_config"]["target_ongoing_requests"] == 3


def test_a_version_that_may_sleep_is_loaded_once_at_its_deploy() -> None:
    changed = document("models.digits.versions.2.replicas={min: 0, max: 4}")
    (scaled,) = application(changed, "digits@2")["deployments"]
    assert scaled["autoscaling_config"]["min_replicas"] == 0
    assert scaled["autoscaling_config"]["initial_replicas"] == 1
    changed = document("models.digits.versions.2.replicas={min: 1, max: 4}")
    (scaled,) = application(changed, "digits@2")["deployments"]
    assert "initial_replicas" not in scaled["autoscaling_config"]


def test_old_replicas_may_have_to_go_first() -> None:
    (deployment,) = application(document(), "digits@2")["deployments"]
    assert deployment["max_surge_percent"] == 100
    changed = document("models.digits.versions.2.replicas.max_surge_percent=0")
    (deployment,) = application(changed, "digits@2")["deployments"]
    assert deployment["max_surge_percent"] == 0
    assert all(
        each["max_surge_percent"] == 100 for each in application(changed, "gateway")["deployments"]
    )


def test_gpus_reach_ray_whole_or_in_fractions() -> None:
    rendered = document("models.minilm.versions.1.resources.num_gpus=0.5")
    (deployment,) = application(rendered, "minilm@1")["deployments"]
    assert deployment["ray_actor_options"] == {"num_cpus": 0.5, "num_gpus": 0.5}


def test_memory_is_reserved_where_it_is_declared() -> None:
    (actor,) = [
        deployment["ray_actor_options"]
        for each in document("models.digits.versions.2.resources.memory_mib=512")["applications"]
        for deployment in each["deployments"]
        if "memory" in deployment["ray_actor_options"]
    ]
    assert actor["memory"] == 512 * 1024 * 1024


def test_the_builders_get_back_the_very_types() -> None:
    rendered = document()
    assert build_gateway.__annotations__["arguments"] is GatewayArguments
    assert build_model.__annotations__["arguments"] is ReplicaArguments
    for each in rendered["applications"]:
        kind = GatewayArguments if each["name"] == "gateway" else ReplicaArguments
        again = kind.model_validate(each["args"])
        assert again.model_dump(mode="json", by_alias=True) == each["args"]


def test_no_secret_can_be_in_the_document() -> None:
    marker = "marker-secret-4711"
    with patch.dict(os.environ, {"SERVE_APP_DATABASE_PASSWORD": marker}):
        text = to_yaml(document("database=postgres", "database.url=postgresql://u@db/x"))
    assert marker not in text
