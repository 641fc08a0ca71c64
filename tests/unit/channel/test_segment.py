from __future__ import annotations

import fcntl
import os

import numpy as np
import pytest

from serve_app.channel import segment as module
from serve_app.channel.frame import FrameError, call_frame, read_call
from serve_app.channel.segment import SHARED_FROM, SegmentMaps, SegmentPool, SegmentRef
from tests.unit.channel.peers import batch
from tests.unit.channel.test_frame import cut


def test_a_large_batch_goes_through_memory_and_not_through_the_frame() -> None:
    pool, maps = SegmentPool(), SegmentMaps(os.getpid())
    assert maps.reachable
    large = batch(columns=SHARED_FROM // 8)
    parts, segment = call_frame(1, large, 0.0, pool)
    assert segment is not None
    assert sum(map(len, parts)) < 500
    received, _ = read_call(cut(parts), maps)
    np.testing.assert_array_equal(received.inputs["x"], large.inputs["x"])
    assert not received.inputs["x"].flags.writeable
    pool.give(segment)
    small = call_frame(1, batch(columns=SHARED_FROM // 8 - 100), 0.0, pool)
    assert small[1] is None
    pool.close()


def test_what_is_mapped_outlives_its_owner() -> None:
    pool, maps = SegmentPool(), SegmentMaps(os.getpid())
    large = batch(9, columns=SHARED_FROM)
    parts, _ = call_frame(1, large, 0.0, pool)
    received, _ = read_call(cut(parts), maps)
    pool.close()
    assert (received.inputs["x"] == 9).all()


def test_segments_are_used_again_and_never_by_two() -> None:
    pool = SegmentPool()
    first, second = pool.take(SHARED_FROM), pool.take(SHARED_FROM)
    assert first.ref.descriptor != second.ref.descriptor
    pool.give(first)
    assert pool.take(1 << 20) is first
    assert pool.take((1 << 20) + 1) is not first
    pool.close()


def test_idle_memory_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_IDLE_BYTES", 3 << 20)
    pool = SegmentPool()
    taken = [pool.take(SHARED_FROM) for _ in range(6)]
    before = len(os.listdir("/proc/self/fd"))
    for segment in taken:
        pool.give(segment)
    assert before - len(os.listdir("/proc/self/fd")) == 3
    pool.close()


def test_what_a_replica_will_not_map() -> None:
    maps = SegmentMaps(os.getpid())
    ours, theirs = os.pipe()
    unsealed = os.memfd_create("unsealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(unsealed, 4096)
    empty = os.memfd_create("empty", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fcntl.fcntl(empty, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    for descriptor in (-1, 2**40, ours, theirs, unsealed, empty):
        with pytest.raises(OSError, match=r"."):
            maps.view(SegmentRef(descriptor, 1))
    for descriptor in (ours, theirs, unsealed, empty):
        os.close(descriptor)


def test_a_pipe_without_a_writer_keeps_nobody_waiting() -> None:
    ours, theirs = os.pipe()
    os.close(theirs)
    with pytest.raises(OSError, match=r"."):
        SegmentMaps(os.getpid()).view(SegmentRef(ours, 1))
    os.close(ours)


def test_a_segment_shorter_than_its_tensors_is_refused() -> None:
    pool, maps = SegmentPool(), SegmentMaps(os.getpid())
    parts, segment = call_frame(1, batch(columns=(1 << 21) // 8), 0.0, pool)
    assert segment is not None
    small = pool.take(SHARED_FROM)
    frame = cut(parts)
    header = bytearray(frame.header)
    header[-3:] = bytes([0x92, small.ref.descriptor, small.ref.number])
    with pytest.raises(FrameError):
        read_call(frame._replace(header=memoryview(header)), maps)
    pool.close()


def test_another_users_process_is_not_reachable() -> None:
    assert not SegmentMaps(0).reachable
    assert not SegmentMaps(2**30).reachable
