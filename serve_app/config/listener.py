"""The groups `http`, `grpc` and `metrics`: the listeners of each ingress, and their caps."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from serve_app.config.schema import Schema

MIB = 1024 * 1024


class HttpConfig(Schema):
    """The HTTP listener. Several ingress replicas of a node share the port."""

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: int = Field(8000, ge=1, le=65535)
    docs: bool = Field(True, description="serve /docs and /openapi.json")
    admin: bool = Field(
        True, description="serve /admin/v1; on loopback only, as nobody is authenticated yet"
    )
    max_connections: int = Field(10_000, ge=1, description="open connections per ingress replica")
    max_body_bytes: int = Field(64 * MIB, ge=1024, description="of one request, decoded")
    max_buffered_bytes: int = Field(
        1024 * MIB,
        ge=1024,
        description="bodies of all requests in work together, per ingress replica; beyond: 503",
    )
    max_header_bytes: int = Field(64 * 1024, ge=1024, description="request line and headers")
    max_headers: int = Field(100, ge=8)
    max_json_depth: int = Field(32, ge=8, le=900, description="nesting of a JSON body")
    header_timeout_s: float = Field(10.0, gt=0, description="from connect to a complete header")
    body_timeout_s: float = Field(30.0, gt=0, description="from the header to the whole body")
    write_timeout_s: float = Field(30.0, gt=0, description="a client that does not read")
    idle_timeout_s: float = Field(75.0, gt=0, description="a keep-alive connection without request")
    backlog: int = Field(2048, ge=1, description="connections that wait to be accepted")

    @model_validator(mode="after")
    def _largest_body_fits(self) -> Self:
        if self.max_buffered_bytes < self.max_body_bytes:
            raise ValueError("max_buffered_bytes must not be below max_body_bytes")
        return self


class GrpcConfig(Schema):
    """The gRPC listener."""

    enabled: bool = True
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: int = Field(8001, ge=1, le=65535)
    max_message_bytes: int = Field(64 * MIB, ge=1024, description="of one request")
    max_concurrent_rpcs: int = Field(2048, ge=1, description="per ingress replica")
    max_connection_age_s: float | None = Field(
        10.0,
        gt=0,
        description="clients connect anew after this long, so that load spreads and a stopping "
        "ingress loses no request; keep it well below ingress.drain_timeout_s",
    )


class MetricsConfig(Schema):
    """The Prometheus listener; one exposition for the whole node."""

    enabled: bool = True
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: int = Field(8002, ge=1, le=65535)

    def listener(self) -> HttpConfig:
        """Caps of the listener: a few scrapers, which send nothing but a short head."""
        return HttpConfig(
            host=self.host,
            port=self.port,
            docs=False,
            max_connections=64,
            max_body_bytes=1024,
            max_buffered_bytes=64 * 1024,
            max_header_bytes=16 * 1024,
            header_timeout_s=5.0,
            body_timeout_s=5.0,
            write_timeout_s=10.0,
            backlog=64,
        )
