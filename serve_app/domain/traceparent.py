"""The trace context that a client sends, so that its traces and our logs can be joined.

Source of the format: W3C Trace Context, "traceparent", version 00.
"""

from __future__ import annotations

import re

_PATTERN = re.compile("00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def traceparent(value: str) -> str:
    """The value if it is a trace context of version 00, else nothing."""
    return value if _PATTERN.fullmatch(value) is not None else ""


def trace_id(context: str) -> str:
    """The trace id, 32 hexadecimal digits, of a valid trace context."""
    return context[3:35]
