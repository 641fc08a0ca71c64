"""Serve's account of an application, in the words of `serve-app status`."""

from __future__ import annotations

from typing import Any

from deployments.rates import quantile
from deployments.status import cause, deployment_state

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


def test_only_a_failed_deploy_is_final() -> None:
    assert deployment_state(account("DEPLOY_FAILED", 0, 1), "a", "D").failed
    assert not deployment_state(account("UNHEALTHY", 0, 1), "a", "D").failed


def test_quantiles_are_linear_within_a_bucket() -> None:
    buckets = [(0.001, 50.0), (0.002, 100.0), (float("inf"), 100.0)]
    assert quantile(0.5, buckets) == 1.0
    assert quantile(0.75, buckets) == 1.5
    assert quantile(0.99, [(0.001, 0.0), (float("inf"), 10.0)]) == 1.0
    assert quantile(0.5, []) is None
