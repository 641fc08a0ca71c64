"""What all configuration schemas share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Schema(BaseModel):
    """Frozen, and strict about unknown keys: a typo is an error, never a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid")
