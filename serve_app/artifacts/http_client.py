"""An HTTP client that connects to public addresses only."""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import Any

import aiohttp


async def guarded_client(**options: Any) -> aiohttp.ClientSession:
    """A session for fsspec whose every connection is checked, those after redirects included.

    The check sees the address that is about to be connected to, not a name, so a name that
    resolves differently the second time gains nothing.
    """
    connector = aiohttp.TCPConnector(socket_factory=_public_socket)
    return aiohttp.ClientSession(connector=connector, **options)


def _public_socket(address_info: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, address = address_info
    host = ipaddress.ip_address(str(address[0]).partition("%")[0])
    if isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped is not None:
        host = host.ipv4_mapped
    if not host.is_global or host.is_multicast:
        raise PermissionError(errno.EACCES, f"{host} is not a public address")
    return socket.socket(family, kind, protocol)
