"""What the kernel does with connections to a socket that is about to close."""

from __future__ import annotations

import asyncio
import socket

from serve_app.listening.handshake_filter import finish_handshakes

HOST = "127.0.0.1"


def listening(port: int = 0) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((HOST, port))
    made.listen()
    made.setblocking(False)
    return made


async def test_a_connection_that_comes_late_is_made_to_the_sibling() -> None:
    with listening() as closing, socket.socket() as client:
        await finish_handshakes(closing)
        client.setblocking(False)
        address = closing.getsockname()
        connected = asyncio.create_task(asyncio.get_running_loop().sock_connect(client, address))
        done, _ = await asyncio.wait([connected], timeout=0.2)
        assert not done  # neither taken in nor refused
        with listening(address[1]) as sibling:
            closing.close()
            await asyncio.wait_for(connected, 10)
            accepted, peer = sibling.accept()
            accepted.close()
            assert peer == client.getsockname()


async def test_a_connection_that_is_complete_stays_and_is_served() -> None:
    with (
        listening() as closing,
        socket.create_connection(closing.getsockname(), timeout=10) as client,
    ):
        await finish_handshakes(closing)
        accepted, _ = closing.accept()
        closing.close()
        with accepted:
            accepted.setblocking(True)
            for sent in (b"a", b"b"):
                client.sendall(sent)
                assert accepted.recv(1) == sent
                accepted.sendall(sent)
                assert client.recv(1) == sent
        assert client.recv(1) == b""
