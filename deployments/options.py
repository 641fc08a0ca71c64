"""Config slices -> the names that Ray and Ray Serve use; the only place where they are spelled."""

from __future__ import annotations

from typing import Any

from serve_app.config.ingress import IngressConfig
from serve_app.config.model import ResourcesConfig, VersionConfig
from serve_app.config.root import Config

WAIT_LOOP_S = 0.2
STOP_MARGIN_S = 5.0
MIB = 1024 * 1024
BATCH_BYTES_MAX = 512 * MIB
"""Largest message of a handle call, both ways; the ingress' body cap is far below."""

REPLICA_ENVIRONMENT = {
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(BATCH_BYTES_MAX),
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Read when a replica imports Serve, so they stand in each application's runtime_env."""

CONTROLLER_ENVIRONMENT = {
    "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",
    "RAY_SERVE_STOP_FAILED_ROLLING_UPDATES": "1",
    "RAY_SERVE_KV_TIMEOUT_S": "10",
    # After so long Serve says that a replica waits for resources.
    "RAY_SERVE_SLOW_STARTUP_WARNING_S": "10",
    "RAY_SERVE_SLOW_STARTUP_WARNING_PERIOD_S": "10",
    "RAY_SERVE_CONTROLLER_METRICS_INCLUDE_HIGH_CARDINALITY_TAGS": "0",
}
"""Read by the Serve controller when it is first created."""

COMMON: dict[str, Any] = {
    "health_check_period_s": 5.0,
    "health_check_timeout_s": 10.0,
    "graceful_shutdown_wait_loop_s": WAIT_LOOP_S,
    # Serve would write a line per handle call; our own log has one per request.
    "logging_config": {"enable_access_log": False},
}


def ingress_options(ingress: IngressConfig) -> dict[str, Any]:
    """Options of the Ingress deployment."""
    return {
        "num_replicas": ingress.replicas,
        "max_ongoing_requests": 1000,
        "graceful_shutdown_timeout_s": ingress.drain_timeout_s + STOP_MARGIN_S,
        "max_surge_percent": 100,
        "ray_actor_options": {"num_cpus": ingress.num_cpus},
        **COMMON,
    }


def router_options(config: Config) -> dict[str, Any]:
    """Options of the ModelRouter deployment: each waiting poll takes one ongoing request."""
    return {
        "num_replicas": 1,
        "max_ongoing_requests": 10_000,
        # Long polls would hold the old router up; an ingress simply asks the new one.
        "graceful_shutdown_timeout_s": 1.0,
        "max_surge_percent": 100,
        "ray_actor_options": {"num_cpus": config.cluster.router_num_cpus},
        **COMMON,
    }


def replica_options(settings: VersionConfig) -> dict[str, Any]:
    """Options of one version's ModelReplica deployment."""
    replicas, batching = settings.replicas, settings.batching
    options: dict[str, Any] = {
        # The ingresses keep to the slots; the slack spares a late batch Serve's back-off.
        "max_ongoing_requests": 2 * batching.slots_per_replica + 2,
        "graceful_shutdown_timeout_s": settings.timeouts.drain_s + STOP_MARGIN_S,
        "max_surge_percent": replicas.max_surge_percent,
        "ray_actor_options": _actor_options(settings.resources),
        **COMMON,
    }
    if replicas.max > replicas.min:
        options["autoscaling_config"] = {
            "min_replicas": replicas.min,
            "max_replicas": replicas.max,
            "target_ongoing_requests": replicas.target,
            "metrics_interval_s": 1.0,
            "look_back_period_s": 3.0,
            "upscale_delay_s": replicas.upscale_delay_s,
            "downscale_delay_s": replicas.downscale_delay_s,
            "policy": {"policy_function": "deployments.scaling:batches_in_work"},
        }
        if not replicas.min:
            # One that may sleep is loaded once all the same: a deploy shows that it can be.
            options["autoscaling_config"]["initial_replicas"] = 1
    else:
        options["num_replicas"] = replicas.min
    return options


def _actor_options(resources: ResourcesConfig) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": resources.num_cpus, "num_gpus": resources.num_gpus}
    if resources.memory_mib:
        options["memory"] = resources.memory_mib * MIB
    return options
