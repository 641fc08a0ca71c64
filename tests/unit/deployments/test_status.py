"""Serve's account of an application, in the words of `serve-app status`."""

from __future__ import annotations

from typing import Any

from deployments.naming import REPLICA
from deployments.rates import quantile
from deployments.status import DeploymentState, cause, deployment_state, version_state
from serve_app.config.load import load_config
from serve_app.domain.inference import VersionKey

REMOTE = """The deployment failed to start 3 times in a row.
Error:
ray::ServeReplica:digits@4:ModelReplica.initialize() (pid=1, ip=127.0.0.1)
  File "/somewhere/replica.py", line 40, in __init__
serve_app.errors.ArtifactError: digest of model.bin is aaa, declared is bbb

During handling of the above exception, another exception occurred:
RuntimeError: Traceback (most recent call last):
"""


def account(status: str, running: int, target: int) -> dict[str, Any]:
    replicas = [{"state": "RUNNING"}] * running + [{"state": "STARTING"}] * (target - running)
    deployment = {"replicas": replicas, "target_num_replicas": target, "message": ""}
    return {"applications": {"a": {"status": status, "deployments": {"D": deployment}}}}


def test_the_cause_is_our_error_in_one_line() -> None:
    assert cause(REMOTE) == "digest of model.bin is aaa, declared is bbb"


def test_without_one_of_ours_the_last_error_line_counts() -> None:
    assert cause("something\nValueError: wrong\n  at the end") == "ValueError: wrong"
    assert cause("just words") == "just words"
    assert cause("") == ""


def test_ready_needs_every_replica() -> None:
    assert deployment_state(account("RUNNING", 2, 2), "a", "D").ready
    assert not deployment_state(account("RUNNING", 1, 2), "a", "D").ready
    assert not deployment_state(account("DEPLOYING", 2, 2), "a", "D").ready
    assert not deployment_state({}, "a", "D").ready


def test_a_version_is_ready_with_as_many_replicas_as_it_always_has() -> None:
    settings = load_config(["model=[digits]"]).models["digits"].versions["2"]

    def state(least: int, running: int, target: int) -> DeploymentState:
        details = account("RUNNING", running, target)
        details["applications"]["digits@2"] = details["applications"].pop("a")
        (deployment,) = details["applications"]["digits@2"]["deployments"].values()
        details["applications"]["digits@2"]["deployments"] = {REPLICA: deployment}
        replicas = settings.replicas.model_copy(update={"min": least})
        changed = settings.model_copy(update={"replicas": replicas})
        return version_state(details, VersionKey("digits", "2"), changed)

    assert state(1, running=1, target=3).ready  # two more come for the load
    assert not state(2, running=1, target=2).ready
    assert not state(1, running=0, target=1).ready
    assert (state(0, running=0, target=0).ready, state(0, running=0, target=0).idle) == (True, True)
    assert not state(0, running=1, target=1).idle


def test_a_replica_that_waits_for_resources_is_described_in_one_line() -> None:
    message = (
        "Deployment 'ModelReplica' in application 'echo@1' has 1 replicas that have taken more "
        "than 10s to be scheduled. This may be due to waiting for the cluster to auto-scale or for "
        "a runtime environment to be installed. Resources required for each replica: "
        '{"CPU": 0.05, "GPU": 0.5}, total resources available: {"CPU": 3.2}. '
        "Use `ray status` for more details."
    )
    assert cause(message) == (
        '1 replica waits for resources: each needs {"CPU": 0.05, "GPU": 0.5}, free are {"CPU": 3.2}'
    )


def test_only_a_failed_deploy_is_final() -> None:
    assert deployment_state(account("DEPLOY_FAILED", 0, 1), "a", "D").failed
    assert not deployment_state(account("UNHEALTHY", 0, 1), "a", "D").failed


def test_quantiles_are_linear_within_a_bucket() -> None:
    buckets = [(0.001, 50.0), (0.002, 100.0), (float("inf"), 100.0)]
    assert quantile(0.5, buckets) == 1.0
    assert quantile(0.75, buckets) == 1.5
    assert quantile(0.99, [(0.001, 0.0), (float("inf"), 10.0)]) == 1.0
    assert quantile(0.5, []) is None
