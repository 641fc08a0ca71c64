"""What all configuration schemas share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Schema(BaseModel):
    """Frozen, and strict about unknown keys: a typo is an error, never a silent default.

    Errors do not quote their input, which may hold a secret that somebody put in by mistake.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )
