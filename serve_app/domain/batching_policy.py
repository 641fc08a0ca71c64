"""What a model's owner says about batches: caps, and whether the rest is learnt."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class BatchingPolicy(BaseModel):
    """How requests for one version are gathered into batches in each ingress."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    adaptive: bool = Field(
        True, description="learn slots, rows and holds from each batch; the numbers here are caps"
    )
    max_rows: int = Field(256, ge=1, le=65536, description="most rows in one batch")
    max_wait_ms: float = Field(
        0.0,
        ge=0,
        le=10_000,
        description="wait this long for a fuller batch even if a slot is free; 0 leaves it to "
        "adaptive",
    )
    max_queue_rows: int = Field(4096, ge=1, description="rows that may wait; beyond: 503")
    max_queue_bytes: int = Field(
        256 * 1024 * 1024, ge=1, description="payload bytes that may wait; beyond: 503"
    )
    slots_per_replica: int = Field(
        2, ge=1, le=64, description="most batches in flight per replica, all ingresses together"
    )
