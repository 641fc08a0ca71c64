"""Large batches in shared memory: written once by the ingress, read in place by the replica.

A *segment* is a file in memory (memfd) that the ingress owns and uses again and again: fresh pages
cost more than the copy. The replica finds it by the ingress' process id, which the kernel vouches
for, and maps it for reading. It is sealed against shrinking, so that no access can fail, and it
goes away with the last process that has it mapped.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections import OrderedDict
from pathlib import Path

import msgspec

SHARED_FROM = 128 * 1024
"""Payloads from this size on go through a segment; smaller ones cost less inline."""
_LEAST = 1 << 20
_MAX_IDLE_BYTES = 128 << 20
_MAX_MAPPED = 16
_NEEDED_SEALS = fcntl.F_SEAL_SHRINK


class SegmentRef(msgspec.Struct, array_like=True, gc=False):
    """Names a segment of the sending process."""

    descriptor: int
    number: int
    """Tells segments apart that had the same descriptor one after the other."""


class Segment:
    """One piece of shared memory, as its owner has it."""

    __slots__ = ("ref", "size", "view")

    def __init__(self, number: int, size: int) -> None:
        descriptor = os.memfd_create("serve-app-batch", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, size)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _NEEDED_SEALS)
            self.view = memoryview(mmap.mmap(descriptor, size))
        except BaseException:
            os.close(descriptor)
            raise
        self.ref = SegmentRef(descriptor, number)
        self.size = size

    def close(self) -> None:
        """Gives the memory back, as soon as the other side has, too."""
        os.close(self.ref.descriptor)


class SegmentPool:
    """The segments of one connection, on the ingress' side."""

    def __init__(self) -> None:
        self._idle: list[Segment] = []
        self._used: set[Segment] = set()
        self._count = 0

    def take(self, size: int) -> Segment:
        """A segment of at least this size, which nobody else uses.

        Raises:
            OSError: there is no memory, or no descriptor.
        """
        fitting = [segment for segment in self._idle if segment.size >= size]
        if fitting:
            segment = min(fitting, key=lambda each: each.size)
            self._idle.remove(segment)
        else:
            self._count += 1
            segment = Segment(self._count, max(_LEAST, 1 << (size - 1).bit_length()))
        self._used.add(segment)
        return segment

    def give(self, segment: Segment) -> None:
        """Takes a segment back that the replica has read."""
        self._used.discard(segment)
        self._idle.append(segment)
        while sum(each.size for each in self._idle) > _MAX_IDLE_BYTES:
            self._idle.pop(0).close()

    def close(self) -> None:
        """Gives everything back; the replica may still be reading what it has mapped."""
        for segment in (*self._idle, *self._used):
            segment.close()
        self._idle.clear()
        self._used.clear()


class SegmentMaps:
    """The segments of one connection, on the replica's side.

    Args:
        pid: the process at the other end, from the socket's credentials.
    """

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}/fd")
        self._maps: OrderedDict[tuple[int, int], memoryview] = OrderedDict()

    @property
    def reachable(self) -> bool:
        """Whether the other process' segments can be opened: not from another container."""
        return os.access(self._folder, os.R_OK | os.X_OK)

    def view(self, ref: SegmentRef) -> memoryview:
        """The whole segment, read-only.

        Raises:
            OSError: it cannot be opened, or is no sealed memory.
        """
        key = (ref.descriptor, ref.number)
        view = self._maps.get(key)
        if view is None:
            view = self._map(ref.descriptor)
            if len(view) > _MAX_IDLE_BYTES:
                return view  # its owner does not keep it either
            self._maps[key] = view
            while (
                len(self._maps) > _MAX_MAPPED
                or sum(map(len, self._maps.values())) > 2 * _MAX_IDLE_BYTES
            ):
                self._maps.popitem(last=False)
        else:
            self._maps.move_to_end(key)
        return view

    def _map(self, number: int) -> memoryview:
        # O_NONBLOCK: should it be a pipe, opening it must not wait for a writer.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self._folder / str(number), flags)
        try:
            if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _NEEDED_SEALS != _NEEDED_SEALS:
                raise OSError("the segment is not sealed")
            return memoryview(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))
        except ValueError as exc:  # it is empty
            raise OSError("the segment is empty") from exc
        finally:
            os.close(descriptor)
