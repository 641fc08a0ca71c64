"""The id under which a request is found in headers, metadata and logs."""

from __future__ import annotations

import random
import re

_SAFE = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


def request_id(given: bytes | None) -> str:
    """The client's request id if it is safe to repeat in headers and logs, else a new one."""
    if given is not None and _SAFE.fullmatch(given) is not None:
        return given.decode()
    return random.randbytes(16).hex()
