"""A replica in a process of its own that is killed, or stands still."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from serve_app.channel import gateway as module
from serve_app.errors import ReplicaLost
from tests.unit.channel.peers import (
    KEY,
    batch,
    connected_again,
    endpoint,
    gateway,
    replica_process,
    value_of,
)


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_a_replica_that_is_killed_fails_its_calls_at_once(folder: Path) -> None:
    path = folder / "r.sock"
    async with (
        replica_process(path, delay_s=10) as process,
        gateway(endpoint(path)) as (subject, handles),
    ):
        calls = [asyncio.create_task(subject.call(KEY, batch(), 20.0)) for _ in range(6)]
        await asyncio.sleep(0.1)
        process.kill()
        begun = time.monotonic()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - begun < 0.5
        assert {type(outcome) for outcome in outcomes} == {ReplicaLost}
        assert value_of(await subject.call(KEY, batch(), 1.0)) == -1
        assert handles.calls == 1


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_a_replica_that_stands_still_is_noticed_and_taken_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 0.8)  # it beats every 0.5 s
    monkeypatch.setattr(module, "_WATCH_S", 0.05)
    path = folder / "r.sock"
    async with (
        replica_process(path) as process,
        gateway(endpoint(path)) as (subject, _),
    ):
        assert value_of(await subject.call(KEY, batch(), 5.0)) == 7
        process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(0.1)  # it stops a moment later
            begun = time.monotonic()
            with pytest.raises(ReplicaLost):
                await subject.call(KEY, batch(), 20.0)
            assert time.monotonic() - begun < 1.2
            assert value_of(await subject.call(KEY, batch(), 1.0)) == -1
        finally:
            process.send_signal(signal.SIGCONT)
        await connected_again(subject)
