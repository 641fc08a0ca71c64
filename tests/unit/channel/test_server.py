"""The replica's side against ingresses that break the rules, die, or are many."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import tempfile
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.channel import server as module
from serve_app.channel.connection import ChannelConnection
from serve_app.channel.frame import MAGIC, PREFIX, VERSION, Kind, bare_frame, read_failure
from serve_app.domain.routing import Endpoint
from serve_app.errors import ReplicaLost
from tests.contract.channel_replica import ChannelReplica
from tests.unit.channel.peers import (
    batch,
    call_bytes,
    connected,
    raw_ingress,
    replica,
    until,
    value_of,
)
from tests.unit.channel.strategies import damaged

CALL = call_bytes()


def prefix(kind: int, header: int = 0, payload: int = 0, call: int = 1) -> bytes:
    return PREFIX.pack(MAGIC, VERSION, kind, call, header, payload)


async def answers(to: Endpoint, value: int = 5) -> None:
    """A correct ingress is served."""
    async with asyncio.timeout(5), connected(to) as connection:
        assert value_of(await connection.call(batch(value), 5.0)) == value


async def until_idle(found: ChannelReplica) -> None:
    """Waits until nobody is connected and nothing is in work, as the meter sees it."""
    await until(lambda: not found.server.connections and not found.host.meter._ongoing)


BROKEN = {
    "wrong magic": b"XY" + CALL[2:],
    "wrong version": CALL[:2] + bytes([VERSION + 1]) + CALL[3:],
    "unknown kind": prefix(77),
    "a kind of the replica": prefix(Kind.RESULT),
    "a greeting": prefix(Kind.GREETING),
    "a call without a header": prefix(Kind.CALL),
    "a call that is none": prefix(Kind.CALL, 16) + b"\xc1" * 16,
    "a huge frame": prefix(Kind.CALL, 0, 2**31),
    "a huge header": prefix(Kind.CALL, 2**31),
    "a header longer than its frame": prefix(Kind.CALL, len(CALL)) + CALL[16:] + bytes(99),
    "a payload shorter than its tensors": prefix(Kind.CALL, len(CALL) - 32) + CALL[16:] + bytes(16),
    "a line of HTTP": b"POST /v2/models/echo/infer HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_frame_ends_its_connection_and_no_other(folder: Path, case: str) -> None:
    async with replica(folder / "r.sock") as found, connected(found.endpoint) as bystander:
        raw = await raw_ingress(found.endpoint)
        raw.writer.write(BROKEN[case])
        frames = await raw.ended()
        assert [frame.kind for frame in frames if frame.kind is not Kind.BEAT] == [Kind.GREETING]
        raw.close()
        assert value_of(await bystander.call(batch(3), 5.0)) == 3
        await answers(found.endpoint)


@pytest.mark.parametrize("length", [1, 15, 16, 40, len(CALL) - 1])
async def test_a_frame_cut_in_the_middle(folder: Path, length: int) -> None:
    async with replica(folder / "r.sock") as found:
        raw = await raw_ingress(found.endpoint)
        raw.writer.write(CALL[:length])
        await raw.writer.drain()
        await answers(found.endpoint)
        raw.close()
        await until_idle(found)


async def test_a_length_that_lies_keeps_only_its_own_connection_waiting(folder: Path) -> None:
    async with replica(folder / "r.sock") as found:
        raw = await raw_ingress(found.endpoint)
        raw.writer.write(prefix(Kind.CALL, 0, 2**29) + bytes(1000))
        await raw.writer.drain()
        for value in range(3):
            await answers(found.endpoint, value)
        raw.close()
        await until_idle(found)


async def test_a_number_in_use_and_too_many_calls_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_CALLS", 3)
    async with replica(folder / "r.sock", delay_s=0.1) as found:
        raw = await raw_ingress(found.endpoint)
        raw.writer.write(b"".join(call_bytes(number) for number in (1, 2, 2, 3, 4)))
        await asyncio.sleep(0.05)
        raw.writer.write_eof()
        frames = [each for each in await raw.ended() if each.kind is Kind.FAILURE]
        assert [frame.call for frame in frames] == [2, 4]
        assert {read_failure(frame).code for frame in frames} == {"overloaded"}
        raw.close()
        await until_idle(found)


async def test_cancelling_what_is_not_there_is_nothing(folder: Path) -> None:
    async with replica(folder / "r.sock") as found:
        raw = await raw_ingress(found.endpoint)
        raw.writer.write(bare_frame(Kind.CANCEL, 9) + bare_frame(Kind.CANCEL, 0) + call_bytes())
        await asyncio.sleep(0.05)
        raw.writer.write_eof()
        assert [each.kind for each in await raw.ended() if each.kind is not Kind.BEAT] == [
            Kind.GREETING,
            Kind.RESULT,
        ]
        raw.close()


async def test_an_ingress_that_dies_while_the_replica_computes(folder: Path) -> None:
    async with replica(folder / "r.sock", delay_s=0.15) as found:
        connection = ChannelConnection(found.endpoint)
        await connection.open()
        calls = [asyncio.create_task(connection.call(batch(), 5.0)) for _ in range(4)]
        await until(lambda: found.host.meter._ongoing > 0)
        connection.abort()
        assert {type(each) for each in await asyncio.gather(*calls, return_exceptions=True)} == {
            ReplicaLost
        }
        await answers(found.endpoint)  # without waiting for the three that nobody wants
        await until_idle(found)
        assert found.host.meter.sample().backlog == 0


async def test_what_a_connection_held_goes_with_it(folder: Path) -> None:
    async with replica(folder / "r.sock") as found:
        async with connected(found.endpoint) as connection:
            await connection.call(batch(columns=100_000), 5.0)
            (link,) = map(weakref.ref, found.server._links)
        await until_idle(found)
        await asyncio.sleep(0.01)
        gc.collect()
        assert link() is None


async def test_descriptors_are_given_back(folder: Path) -> None:
    async with replica(folder / "r.sock") as found:
        await answers(found.endpoint)
        await until_idle(found)
        before = len(os.listdir("/proc/self/fd"))
        for value in range(20):
            await answers(found.endpoint, value)
        await until_idle(found)
        assert len(os.listdir("/proc/self/fd")) <= before + 1


async def test_connections_that_come_and_go_while_others_compute(folder: Path) -> None:
    async with replica(folder / "r.sock") as found, connected(found.endpoint) as steady:

        async def come_and_go(value: int) -> None:
            for _ in range(10):
                connection = ChannelConnection(found.endpoint)
                await connection.open()
                task = asyncio.create_task(connection.call(batch(value), 5.0))
                await asyncio.sleep(0)
                connection.abort()
                with contextlib.suppress(ReplicaLost):
                    assert value_of(await task) == value
                await connection.gone

        async def stay() -> None:
            for value in range(200):
                assert value_of(await steady.call(batch(value), 5.0)) == value

        await asyncio.gather(stay(), *[come_and_go(value) for value in range(8)])
        await answers(found.endpoint)


async def test_a_large_answer_to_a_slow_reader(folder: Path) -> None:
    large = batch(columns=1_000_000)
    async with replica(folder / "r.sock") as found, connected(found.endpoint) as slow:
        transport = slow._transport
        assert transport is not None
        task = asyncio.create_task(slow.call(large, 10.0))
        await asyncio.sleep(0)
        transport.pause_reading()
        for value in range(5):
            await answers(found.endpoint, value)
        assert not task.done()
        transport.resume_reading()
        np.testing.assert_array_equal((await task).outputs["x"], large.inputs["x"])


async def test_it_beats_while_the_model_computes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.02)
    async with replica(folder / "r.sock", delay_s=0.3) as found:
        raw = await raw_ingress(found.endpoint)
        raw.writer.write(call_bytes())
        await asyncio.sleep(0.25)
        raw.writer.write_eof()
        beats = [each for each in await raw.ended() if each.kind is Kind.BEAT]
        assert 5 <= len(beats) <= 20
        raw.close()


async def test_a_stranger_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # There is no second user to connect as: this process pretends to be one itself.
    async with replica(folder / "r.sock") as found:
        with monkeypatch.context() as patch:
            patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
            raw = await raw_ingress(found.endpoint)
            assert await raw.ended() == []
            raw.close()
        await answers(found.endpoint)


async def test_the_socket_is_the_users_own(folder: Path) -> None:
    async with replica(folder / "r.sock") as found:
        assert found.path.stat().st_mode & 0o777 == 0o600
        await found.server.drain(0.0)
        assert not found.path.exists()
        found.server = found.listen(found.path)
        await answers(found.endpoint)


async def test_drain_answers_what_is_under_way_and_takes_nothing_new(folder: Path) -> None:
    async with replica(folder / "r.sock", delay_s=0.1) as found:
        async with connected(found.endpoint) as connection, connected(found.endpoint) as idle:
            calls = [asyncio.create_task(connection.call(batch(v), 5.0)) for v in range(3)]
            await asyncio.sleep(0.02)
            await asyncio.wait_for(found.server.drain(5.0), 2)
            assert [value_of(each) for each in await asyncio.gather(*calls)] == [0, 1, 2]
            for each in (connection, idle):
                assert not each.usable
                await asyncio.wait_for(each.gone, 1)
        with pytest.raises(OSError, match=r"."):
            await ChannelConnection(found.endpoint).open()
        found.server = found.listen(found.path)


async def test_drain_does_not_wait_for_ever(folder: Path) -> None:
    async with replica(folder / "r.sock") as found:
        raw = await raw_ingress(found.endpoint)
        await asyncio.sleep(0.05)
        await asyncio.wait_for(found.server.drain(0.1), 1)
        kinds = [each.kind for each in await raw.ended() if each.kind is not Kind.BEAT]
        assert kinds == [Kind.GREETING, Kind.DRAINING]
        assert found.server.connections == 0
        raw.close()
        found.server = found.listen(found.path)


async def test_who_connects_while_it_goes_is_told(folder: Path) -> None:
    async with replica(folder / "r.sock") as found:
        opening = asyncio.create_task(raw_ingress(found.endpoint))
        await asyncio.sleep(0)
        await found.server.drain(0.1)
        with contextlib.suppress(OSError):
            raw = await opening
            frames = await raw.ended()
            assert Kind.DRAINING in [each.kind for each in frames] or not frames
            raw.close()
        found.server = found.listen(found.path)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=200), damaged()), min_size=1, max_size=4))
def test_no_bytes_stop_it(streams: list[bytes]) -> None:
    async def attack(path: Path) -> None:
        async with replica(path) as found:
            raws = [await raw_ingress(found.endpoint) for _ in streams]
            for raw, stream in zip(raws, streams, strict=True):
                raw.writer.write(stream)
            await asyncio.sleep(0.01)
            await answers(found.endpoint)
            for raw in raws:
                raw.close()
            await until_idle(found)

    with tempfile.TemporaryDirectory() as name:
        asyncio.run(attack(Path(name) / "r.sock"))
