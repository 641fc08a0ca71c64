"""The groups `cluster`, `database` and `log`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from serve_app.config.schema import Schema
from serve_app.config.secret import SecretRef, without_password


def _known_database(url: str) -> str:
    if not url.startswith(("sqlite:", "sqlite+", "postgresql:", "postgresql+")):
        raise ValueError("must begin with sqlite:// or postgresql://.")
    return url


Transport = Literal["auto", "handle"]


class ClusterConfig(Schema):
    """The Ray cluster: started on this machine, or joined."""

    address: Annotated[str, AfterValidator(without_password)] | None = Field(
        None, description="dashboard URL of a running cluster; null starts Ray on this machine"
    )
    gcs_port: int = Field(6379, ge=1, le=65535, description="of Ray's control store")
    dashboard_port: int = Field(8265, ge=1, le=65535, description="of Ray's dashboard and API")
    num_cpus: int | None = Field(None, ge=1, description="logical CPUs; null counts the cores")
    num_gpus: int | None = Field(None, ge=0, description="logical GPUs; null asks the machine")
    object_store_mib: int = Field(256, ge=80, description="shared memory for Ray's object store")
    ready_timeout_s: float = Field(
        180.0, gt=0, description="`up` and `apply` give up, and undo, after this long"
    )
    settle_s: float = Field(
        20.0,
        ge=0,
        description="`apply` watches new replicas for this long after they are ready; Serve calls "
        "one unhealthy after three checks that fail, 15 s",
    )
    router_num_cpus: float = Field(0.1, ge=0, description="that Ray reserves for ModelRouter")
    transport: Transport = Field(
        "auto",
        description="batches to replicas on the ingress' own node: auto takes their direct channel "
        "where there is one, handle always Serve's handle",
    )
    status_poll_s: float = Field(
        1.0,
        gt=0,
        description="how often ModelRouter looks at replicas; a fifth as often in calm times",
    )


class DatabaseConfig(Schema):
    """Where deployments, releases and outcomes are recorded."""

    url: Annotated[str, AfterValidator(without_password), AfterValidator(_known_database)] = Field(
        description="SQLAlchemy URL without a password"
    )
    password_env: SecretRef | None = Field(
        None, description="name of the environment variable that holds the password"
    )
    pool_size: int = Field(4, ge=1, le=100, description="connections that ModelRouter keeps open")
    timeout_s: float = Field(
        10.0, gt=0, le=60, description="ModelRouter gives up on a transaction after this long"
    )


class LogConfig(Schema):
    """JSON logs of each process, in `<home>/logs`."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    access: bool = Field(True, description="one line per request")
    max_file_bytes: int = Field(
        64 * 1024 * 1024,
        ge=4096,
        description="a log file of this size is renamed to *.1 and a new one begun",
    )
