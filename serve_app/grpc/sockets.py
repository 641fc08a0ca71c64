"""The sockets of gRPC's server, which keeps them to itself.

They are found by the port among the sockets of this process. Only start and drain need them.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable

import psutil


def listening(port: int) -> set[int]:
    """The descriptors on which this process accepts connections to a port."""
    return _descriptors(port, psutil.CONN_LISTEN)


def stop_accepting(descriptors: Iterable[int]) -> None:
    """Closes listening sockets; the connections that they accepted stay open."""
    for descriptor in descriptors:
        # The descriptor is gRPC's to close; shutting down a copy is felt by both.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as copy:
            copy.shutdown(socket.SHUT_RDWR)


def has_connections(port: int) -> bool:
    """Whether clients are connected to this process at a port."""
    return bool(_descriptors(port, psutil.CONN_ESTABLISHED))


def _descriptors(port: int, status: str) -> set[int]:
    return {
        each.fd
        for each in psutil.Process().net_connections("tcp")
        if each.status == status and each.laddr and each.laddr.port == port
    }
