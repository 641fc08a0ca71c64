"""The ingress' side against replicas that break the rules."""

from __future__ import annotations

import asyncio
import gc
import time
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from pathlib import Path

import pytest

from serve_app.channel import connection as module
from serve_app.channel.connection import ChannelConnection
from serve_app.channel.frame import (
    MAGIC,
    PREFIX,
    VERSION,
    FrameError,
    Kind,
    bare_frame,
    failure_frame,
    greeting_frame,
    result_frame,
)
from serve_app.domain.inference import BatchResult
from serve_app.errors import (
    DeadlineExceeded,
    InvalidInput,
    ModelFailed,
    NotReady,
    Overloaded,
    ReplicaLost,
    ServeAppError,
)
from tests.unit.channel.peers import (
    batch,
    connected,
    endpoint,
    greets,
    pretender,
    replica,
    until,
    value_of,
)
from tests.unit.channel.strategies import joined

RESULT = joined(result_frame(1, BatchResult(batch(7).inputs, {}, 0.0)))


def prefix(kind: int, header: int = 0, payload: int = 0, call: int = 1) -> bytes:
    return PREFIX.pack(MAGIC, VERSION, kind, call, header, payload)


BROKEN = {
    "wrong magic": b"XY" + RESULT[2:],
    "wrong version": RESULT[:2] + bytes([VERSION + 1]) + RESULT[3:],
    "unknown kind": prefix(99),
    "a kind of the ingress": prefix(Kind.CANCEL),
    "an answer to no call": joined(result_frame(99, BatchResult({}, {}, 0.0))),
    "a failure of no call": joined(failure_frame(0, NotReady("no"))),
    "an answer twice": RESULT + RESULT,
    "a huge frame": prefix(Kind.RESULT, 0, 2**31),
    "a result without a header": prefix(Kind.RESULT),
    "a failure without a header": prefix(Kind.FAILURE),
    "a result that is none": prefix(Kind.RESULT, 16) + b"\xff" * 16,
    "a failure that is none": prefix(Kind.FAILURE, 16) + b"\xff" * 16,
    "a header longer than its frame": prefix(Kind.RESULT, 16) + RESULT[16:32],
    "a greeting of another replica": joined(greeting_frame("other", shares_memory=False)),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_answer_ends_the_connection_and_no_call_hangs(
    folder: Path, case: str
) -> None:
    async def then(reader: Reader, writer: Writer) -> None:
        writer.write(BROKEN[case])

    async with (
        pretender(folder / "r.sock", greets("r", then)) as to,
        connected(to) as connection,
    ):
        calls = [connection.call(batch(), 30.0) for _ in range(3)]
        async with asyncio.timeout(2):
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            await connection.gone
    if case == "an answer twice":
        assert isinstance(outcomes.pop(0), BatchResult)
    assert {type(outcome) for outcome in outcomes} == {ReplicaLost}
    assert not connection.usable
    assert connection.outstanding == 0


@pytest.mark.parametrize("length", [1, 15, 16, 20, len(RESULT) - 1])
async def test_an_answer_cut_in_the_middle(folder: Path, length: int) -> None:
    async def then(reader: Reader, writer: Writer) -> None:
        writer.write(RESULT[:length])
        await writer.drain()
        raise ConnectionResetError

    async with pretender(folder / "r.sock", greets("r", then)) as to, connected(to) as connection:
        with pytest.raises(ReplicaLost):
            await connection.call(batch(), 30.0)


async def test_a_lying_length_holds_a_call_to_its_deadline_and_no_longer(folder: Path) -> None:
    async def then(reader: Reader, writer: Writer) -> None:
        writer.write(prefix(Kind.RESULT, 0, 2**29) + bytes(1000))

    async with pretender(folder / "r.sock", greets("r", then)) as to, connected(to) as connection:
        with pytest.raises(DeadlineExceeded):
            await connection.call(batch(), 0.1)
        assert connection.outstanding == 1


@pytest.mark.parametrize(
    "error",
    [NotReady("a"), Overloaded("b"), DeadlineExceeded("c"), ModelFailed("d"), InvalidInput("e")],
    ids=lambda error: error.code,
)
async def test_failures_come_as_the_errors_of_the_port(folder: Path, error: ServeAppError) -> None:
    async def then(reader: Reader, writer: Writer) -> None:
        writer.writelines(failure_frame(1, error))

    expected = ModelFailed if isinstance(error, InvalidInput) else type(error)
    async with pretender(folder / "r.sock", greets("r", then)) as to, connected(to) as connection:
        with pytest.raises(expected, match=str(error)):
            await connection.call(batch(), 5.0)
        assert connection.usable
        assert connection.outstanding == 0


async def test_a_replica_that_never_greets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GREETING_S", 0.1)

    async def behaviour(reader: Reader, writer: Writer) -> None:
        await asyncio.sleep(60)

    async with pretender(folder / "r.sock", behaviour) as to:
        connection = ChannelConnection(to)
        with pytest.raises(TimeoutError):
            await connection.open()
        await connection.gone
        with pytest.raises(ReplicaLost):
            await connection.call(batch(), 1.0)


@pytest.mark.parametrize(
    ("says", "error"),
    [
        (b"", ConnectionResetError),
        (joined(greeting_frame("r", shares_memory=False))[:20], ConnectionResetError),
        (joined(greeting_frame("r2", shares_memory=False)), FrameError),
        (b"SSH-2.0-OpenSSH_9.6\r\n", FrameError),
        (prefix(Kind.GREETING), FrameError),
    ],
)
async def test_a_greeting_that_is_none(folder: Path, says: bytes, error: type[Exception]) -> None:
    async def behaviour(reader: Reader, writer: Writer) -> None:
        writer.write(says)
        await writer.drain()

    async with pretender(folder / "r.sock", behaviour) as to:
        connection = ChannelConnection(to)
        with pytest.raises(error):
            await connection.open()
        await connection.gone


async def test_nobody_listens(folder: Path) -> None:
    for path in (folder / "r.sock", folder / ("x" * 120)):
        with pytest.raises(OSError, match=r"."):
            await ChannelConnection(endpoint(path)).open()
    file = folder / "file"
    file.touch()
    with pytest.raises(OSError, match=r"."):
        await ChannelConnection(endpoint(file)).open()


async def test_opening_may_be_cancelled(folder: Path) -> None:
    async def behaviour(reader: Reader, writer: Writer) -> None:
        await asyncio.sleep(60)

    async with pretender(folder / "r.sock", behaviour) as to:
        connection = ChannelConnection(to)
        task = asyncio.create_task(connection.open())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await connection.gone


async def test_a_call_that_was_given_up_stays_outstanding_until_it_is_answered(
    folder: Path,
) -> None:
    async with replica(folder / "r.sock", delay_s=0.2) as found, connected(found.endpoint) as link:
        with pytest.raises(DeadlineExceeded):
            await link.call(batch(), 0.05)
        task = asyncio.create_task(link.call(batch(), 5.0))
        await asyncio.sleep(0.02)
        assert link.outstanding == 2
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert link.outstanding == 2
        await until(lambda: link.outstanding == 0)
        assert value_of(await link.call(batch(9), 5.0)) == 9


async def test_draining_ends_the_connection_after_the_last_answer(folder: Path) -> None:
    async def then(reader: Reader, writer: Writer) -> None:
        writer.write(bare_frame(Kind.DRAINING))
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.write(RESULT)
        async with asyncio.timeout(2):
            await reader.read()

    async with pretender(folder / "r.sock", greets("r", then)) as to, connected(to) as connection:
        task = asyncio.create_task(connection.call(batch(), 5.0))
        await asyncio.sleep(0.05)
        assert not connection.usable
        with pytest.raises(ReplicaLost):
            await connection.call(batch(), 5.0)
        assert value_of(await task) == 7
        async with asyncio.timeout(1):
            await connection.gone


async def test_a_caller_that_goes_as_the_connection_breaks_leaves_nothing_behind(
    folder: Path,
) -> None:
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    async with pretender(folder / "r.sock", greets("r")) as to, connected(to) as connection:
        tasks = [asyncio.create_task(connection.call(batch(), 5.0)) for _ in range(4)]
        await asyncio.sleep(0.02)
        tasks[0].cancel()
        connection.abort()
        tasks[1].cancel()
        await connection.gone
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    del tasks, connection
    gc.collect()
    await asyncio.sleep(0)
    assert failures == []


async def test_numbers_begin_again_after_the_last_one(folder: Path) -> None:
    async with replica(folder / "r.sock") as found, connected(found.endpoint) as connection:
        connection._number = 2**32 - 3
        for value in range(5):
            assert value_of(await connection.call(batch(value), 5.0)) == value
        assert connection._number == 3


async def test_a_call_that_cannot_be_written_costs_only_itself(folder: Path) -> None:
    async with replica(folder / "r.sock") as found, connected(found.endpoint) as connection:
        wrong = batch()._replace(inputs={"x": batch().inputs["x"].astype("complex128")})
        with pytest.raises(ModelFailed):
            await connection.call(wrong, 5.0)
        assert connection.outstanding == 0
        assert value_of(await connection.call(batch(), 5.0)) == 7


async def test_a_timeout_of_nothing(folder: Path) -> None:
    async with replica(folder / "r.sock", delay_s=0.05) as found, connected(found.endpoint) as link:
        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await link.call(batch(), 0.0)
        assert time.monotonic() - begun < 0.04
