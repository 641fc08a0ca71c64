"""What a client may know of a failure, whatever the protocol; the transports only write it down."""

from __future__ import annotations

import random

from serve_app.errors import ModelFailed, OperatorError, ServeAppError

OK = "ok"
"""The code of a request that went well, for telemetry."""

_LONGEST_DETAIL = 1000
_LONGEST_FIELD = 200


def public_error(exc: Exception) -> ServeAppError:
    """The error that a client may see in place of one that was raised."""
    if isinstance(exc, ServeAppError) and not isinstance(exc, OperatorError):
        return exc
    return ServeAppError()


def public_detail(error: ServeAppError) -> str:
    """The text that a client may read; bounded, since it may quote what the client sent.

    A fault of ours tells nothing: its text may hold what came from model code or from a library.
    """
    if error.status != 500:
        return shortened(str(error), _LONGEST_DETAIL)
    if isinstance(error, ModelFailed):
        return "the model could not compute this request"
    return "internal error; the request id leads to its log entry"


def public_field(error: ServeAppError) -> str | None:
    """The part of the request at fault, if one is; bounded as well."""
    return None if error.field is None else shortened(error.field, _LONGEST_FIELD)


def shortened(text: str, longest: int) -> str:
    """The text, cut to a number of characters."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def retry_delay_s(error: ServeAppError) -> float:
    """When to come back: spread, so that refused clients do not come back together."""
    least = error.retry_after_s or 1.0
    return random.uniform(least, 2 * least)
