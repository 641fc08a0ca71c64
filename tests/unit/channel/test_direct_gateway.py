"""Which way a batch takes: the least busy channel, or the fallback."""

from __future__ import annotations

import asyncio
import time
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from pathlib import Path

import pytest

from serve_app.channel import connection as connection_module
from serve_app.channel import gateway as module
from serve_app.channel import server as server_module
from serve_app.channel.frame import Kind, bare_frame
from serve_app.channel.gateway import DirectGateway
from serve_app.domain.inference import VersionKey
from serve_app.errors import ReplicaLost
from tests.contract.channel_replica import ChannelReplica, route
from tests.unit.channel.peers import (
    KEY,
    Handles,
    batch,
    connected_again,
    endpoint,
    gateway,
    greets,
    pretender,
    replica,
    until,
    value_of,
)

NOBODY = -1
"""What the fallback answers."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is noticed after 0.2 s instead of 3."""
    monkeypatch.setattr(server_module, "BEAT_S", 0.03)
    monkeypatch.setattr(module, "SILENCE_S", 0.2)
    monkeypatch.setattr(module, "_WATCH_S", 0.02)


async def value(subject: DirectGateway, number: int = 7, timeout_s: float = 5.0) -> int:
    return value_of(await subject.call(KEY, batch(number), timeout_s))


def computed(found: ChannelReplica) -> int:
    return found.host.meter._batches


async def test_without_an_endpoint_the_fallback_is_taken_and_says_why(folder: Path) -> None:
    seen: list[tuple[VersionKey, str]] = []
    handles = Handles()
    subject = DirectGateway(handles, "this-node", lambda key, doubt: seen.append((key, doubt)))
    assert await value(subject) == NOBODY
    elsewhere = endpoint(folder / "far.sock")._replace(node="another-node")
    subject.follow([route(KEY, elsewhere)], 1)
    assert await value(subject) == NOBODY
    subject.follow([route(KEY, endpoint(folder / "gone.sock"))], 1)
    await subject.ready(2.0)
    assert await value(subject) == NOBODY
    await subject.close()
    assert seen == [(KEY, "no_endpoint"), (KEY, "no_endpoint"), (KEY, "connect")]


async def test_the_least_busy_replica_is_chosen(folder: Path) -> None:
    async with (
        replica(folder / "a.sock", delay_s=0.05) as one,
        replica(folder / "b.sock", delay_s=0.05) as two,
        gateway(one.endpoint, two.endpoint) as (subject, handles),
    ):
        assert await asyncio.gather(*[value(subject, n) for n in range(8)]) == list(range(8))
        assert computed(one) == computed(two) == 4
        assert handles.calls == 0


async def test_a_replica_that_hangs_gets_no_more_calls_than_it_has(folder: Path) -> None:
    async with (
        pretender(folder / "a.sock", greets("a")) as hung,
        replica(folder / "b.sock") as free,
        gateway(hung, free.endpoint) as (subject, handles),
    ):
        stuck = [asyncio.create_task(subject.call(KEY, batch(), 0.3)) for _ in range(2)]
        await asyncio.sleep(0.1)
        for number in range(20):
            assert await value(subject, number) == number
        outcomes = await asyncio.gather(*stuck, return_exceptions=True)
        assert sum(isinstance(each, Exception) for each in outcomes) == 1
        assert computed(free) == 21
        assert handles.calls == 0


async def test_what_is_too_much_goes_elsewhere_if_there_is_an_elsewhere(folder: Path) -> None:
    async with (
        replica(folder / "a.sock", slots=2, delay_s=0.05) as one,
        gateway(one.endpoint, replicas=2) as (subject, handles),
    ):
        found = await asyncio.gather(*[value(subject, n) for n in range(5)])
        assert found == [0, 1, NOBODY, NOBODY, NOBODY]
        assert handles.calls == 3
        subject.follow([route(KEY, one.endpoint, replicas=2)], ingresses=2)
        assert await asyncio.gather(*[value(subject, n) for n in range(2)]) == [0, NOBODY]
        subject.follow([route(KEY, one.endpoint, replicas=1)], ingresses=1)
        assert await asyncio.gather(*[value(subject, n) for n in range(5)]) == list(range(5))


async def test_versions_keep_to_their_own_replicas(folder: Path) -> None:
    other = VersionKey("echo", "2")
    async with (
        replica(folder / "a.sock") as one,
        replica(folder / "b.sock") as two,
        gateway(one.endpoint) as (subject, _),
    ):
        subject.follow([route(KEY, one.endpoint), route(other, two.endpoint)], 1)
        await subject.ready(2.0)
        await subject.call(other, batch(), 5.0)
        assert (computed(one), computed(two)) == (0, 1)


async def test_an_endpoint_that_leaves_the_table_answers_what_it_has(folder: Path) -> None:
    async with (
        replica(folder / "a.sock", delay_s=0.1) as one,
        gateway(one.endpoint) as (subject, handles),
    ):
        call = asyncio.create_task(value(subject, 1))
        await asyncio.sleep(0.02)
        subject.follow([], 1)
        assert await value(subject, 2) == NOBODY
        assert await call == 1
        await until(lambda: one.server.connections == 0)
        subject.follow([route(KEY, one.endpoint)], 1)
        await subject.ready(2.0)
        assert await value(subject, 3) == 3
        assert handles.calls == 1


async def test_a_table_without_the_key_and_one_without_endpoints(folder: Path) -> None:
    async with (
        replica(folder / "a.sock") as one,
        gateway(one.endpoint) as (subject, _),
    ):
        subject.follow([route(KEY, replicas=1)], 1)
        assert await value(subject) == NOBODY
        await until(lambda: one.server.connections == 0)


async def test_nothing_is_lost_while_a_replica_drains(folder: Path) -> None:
    async with (
        replica(folder / "a.sock", delay_s=0.002) as one,
        replica(folder / "b.sock", delay_s=0.002) as two,
        gateway(one.endpoint, two.endpoint) as (subject, handles),
    ):
        stop = asyncio.Event()

        async def caller(first: int) -> int:
            number = first
            while not stop.is_set():
                assert await value(subject, number) == number
                number += 8
            return (number - first) // 8

        callers = [asyncio.create_task(caller(first)) for first in range(8)]
        await asyncio.sleep(0.15)
        subject.follow([route(KEY, two.endpoint)], 1)
        await asyncio.wait_for(one.server.drain(5.0), 2)
        left = computed(one)
        await asyncio.sleep(0.15)
        stop.set()
        sent = sum(await asyncio.gather(*callers))
        assert left == computed(one) > 0
        assert sent == computed(one) + computed(two)
        assert handles.calls == 0
        one.server = one.listen(one.path)


async def test_nothing_is_lost_if_the_replica_says_it_first(folder: Path) -> None:
    async with (
        replica(folder / "a.sock", delay_s=0.002) as one,
        gateway(one.endpoint) as (subject, handles),
    ):

        async def caller() -> list[int]:
            return [await value(subject, 5) for _ in range(60)]

        callers = [asyncio.create_task(caller()) for _ in range(8)]
        await asyncio.sleep(0.05)
        await asyncio.wait_for(one.server.drain(5.0), 2)
        found = [each for part in await asyncio.gather(*callers) for each in part]
        assert set(found) == {5, NOBODY}
        assert found.count(NOBODY) == handles.calls == 480 - computed(one)
        one.server = one.listen(one.path)


async def test_a_deleted_socket_file_hurts_only_who_comes_later(folder: Path) -> None:
    async with (
        replica(folder / "a.sock") as one,
        gateway(one.endpoint) as (before, _),
    ):
        one.path.unlink()
        assert await value(before) == 7
        async with gateway(one.endpoint) as (after, handles):
            assert await value(after) == NOBODY
            assert handles.calls == 1
        assert await value(before) == 7


async def test_a_path_that_another_replica_uses_now(folder: Path) -> None:
    async with replica(folder / "a.sock") as one:
        stale = one.endpoint._replace(replica="the one before")
        async with gateway(stale) as (subject, handles):
            assert await value(subject) == NOBODY
            assert handles.calls == 1
            assert subject._pools[KEY].doubt == "protocol"
            subject.follow([route(KEY, one.endpoint)], 1)
            await subject.ready(2.0)
            assert await value(subject) == 7


async def test_a_replica_that_never_greets_holds_nobody_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "GREETING_S", 0.1)

    async def mute(reader: Reader, writer: Writer) -> None:
        await asyncio.sleep(60)

    async with (
        pretender(folder / "a.sock", mute) as silent,
        gateway(silent) as (subject, _),
    ):
        begun = time.monotonic()
        assert await value(subject) == NOBODY
        assert time.monotonic() - begun < 0.1


@pytest.mark.usefixtures("impatient")
async def test_a_replica_that_greets_and_is_silent_is_given_up(folder: Path) -> None:
    async with (
        pretender(folder / "a.sock", greets("a")) as silent,
        gateway(silent) as (subject, _),
    ):
        begun = time.monotonic()
        with pytest.raises(ReplicaLost):
            await value(subject)
        assert 0.1 < time.monotonic() - begun < 0.5
        assert await value(subject) == NOBODY
        assert subject._pools[KEY].doubt == "stuck"


@pytest.mark.usefixtures("impatient")
async def test_a_replica_that_beats_may_compute_for_as_long_as_it_likes(folder: Path) -> None:
    async def beat(reader: Reader, writer: Writer) -> None:
        for _ in range(20):
            writer.write(bare_frame(Kind.BEAT))
            await asyncio.sleep(0.03)

    async with (
        pretender(folder / "a.sock", greets("a", beat)) as slow,
        gateway(slow) as (subject, _),
    ):
        call = asyncio.create_task(value(subject))
        await asyncio.sleep(0.45)
        assert not call.done()
        call.cancel()


async def test_an_ingress_that_stood_still_itself_blames_nobody(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 0.3)
    monkeypatch.setattr(module, "_WATCH_S", 0.02)
    async with (
        replica(folder / "a.sock", delay_s=0.1) as one,
        gateway(one.endpoint) as (subject, handles),
    ):
        await asyncio.sleep(0.1)
        call = asyncio.create_task(value(subject))
        await asyncio.sleep(0.02)
        time.sleep(0.6)  # noqa: ASYNC251 - that is what it is about
        assert await call == 7
        assert handles.calls == 0


async def test_a_lost_connection_is_made_again(folder: Path) -> None:
    async with (
        replica(folder / "a.sock") as one,
        gateway(one.endpoint) as (subject, handles),
    ):
        (link,) = subject._pools[KEY].links.values()
        assert link.connection is not None
        link.connection.abort()
        assert await value(subject) == NOBODY
        await connected_again(subject)
        assert handles.calls > 0


async def test_no_error_ends_the_attempts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = 0

    async def fails(self: object) -> None:
        nonlocal attempts
        attempts += 1
        raise ValueError("embedded null byte")

    with monkeypatch.context() as patch:
        patch.setattr(connection_module.ChannelConnection, "open", fails)
        async with replica(folder / "a.sock") as one, gateway(one.endpoint) as (subject, _):
            assert await value(subject) == NOBODY
            patch.undo()
            await connected_again(subject)
    assert attempts >= 1


async def test_closing_loses_what_is_under_way_and_leaves_no_task(folder: Path) -> None:
    async with replica(folder / "a.sock", delay_s=0.1) as one:
        before = asyncio.all_tasks()
        async with gateway(one.endpoint) as (subject, _):
            call = asyncio.create_task(value(subject))
            await asyncio.sleep(0.02)
        with pytest.raises(ReplicaLost):
            await call
        assert asyncio.all_tasks() == before
