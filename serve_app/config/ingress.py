"""The group `ingress`: replicas, limits and shutdown of the ingress, and caps on each request."""

from __future__ import annotations

from pydantic import Field

from serve_app.config.schema import Schema


class RequestLimits(Schema):
    """Caps that hold for a request in any protocol."""

    max_tensors: int = Field(64, ge=1, description="inputs of one request")
    max_rows: int = Field(16_384, ge=1, description="rows (first dimension) of one request")
    max_dims: int = Field(16, ge=1, description="dimensions of one tensor")


class IngressConfig(Schema):
    """The Ingress deployment."""

    replicas: int = Field(
        1, ge=1, le=256, description="processes; those on one node share the ports"
    )
    num_cpus: float = Field(0.2, ge=0, description="that Ray reserves for one replica")
    limits: RequestLimits = RequestLimits()
    drain_timeout_s: float = Field(
        30.0, gt=0, description="how long a stopping ingress waits for requests in flight"
    )
    table_poll_s: float = Field(10.0, gt=0, description="longest wait of one poll for the table")
