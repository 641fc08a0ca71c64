"""Free TCP ports for servers that are started here."""

from __future__ import annotations

import random
import socket

LOWEST, HIGHEST = 20_000, 31_000
"""Above the ports of Ray's workers, below those that Linux gives to outgoing connections."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment."""
    found: list[int] = []
    for port in random.sample(range(LOWEST, HIGHEST), HIGHEST - LOWEST):
        if len(found) == count:
            break
        if _is_free(port):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
