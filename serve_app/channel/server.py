"""The replica's side of the direct channel: one Unix socket, served by the thread that computes.

Between two computations the compute thread reads what has arrived, so that a batch costs one read,
one computation and one write, and no hand-over. What must not wait for a computation, the heartbeat
and the accepting of connections, is done by the event loop (`beat`, `drain`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from pathlib import Path
from select import EPOLLERR, EPOLLHUP, EPOLLOUT, POLLOUT, poll
from threading import Lock
from time import monotonic
from typing import Protocol

from serve_app.channel.frame import (
    Frame,
    FrameError,
    Kind,
    bare_frame,
    failure_frame,
    greeting_frame,
    read_call,
    result_frame,
)
from serve_app.channel.segment import SegmentMaps
from serve_app.channel.stream import FrameReader
from serve_app.domain.inference import BatchResult, InferenceBatch
from serve_app.domain.raw_tensor import Buffer
from serve_app.errors import ModelFailed, Overloaded, ServeAppError
from serve_app.load_meter import LoadMeter

logger = logging.getLogger(__name__)

BEAT_S = 0.5
"""How often a replica says that it lives."""

_BACKLOG = 64
_MAX_CALLS = 256
"""Calls that may wait on one connection. Ingresses keep to the slots, which are far fewer."""
_CREDENTIALS = struct.Struct("3i")
_BEAT = bare_frame(Kind.BEAT)
_DRAINING = bare_frame(Kind.DRAINING)
_PATIENCE_S = 0.05
_MAX_BUFFERS = 512
"""Of one write; the kernel takes 1024."""

Compute = Callable[[InferenceBatch, float], BatchResult]
"""Computes a batch whose budgets count from a `time.monotonic()`; runs in the compute thread."""


class Worker(Protocol):
    """The compute thread, as far as the channel needs it (`predictors.compute_thread`)."""

    def enqueue(self, job: Callable[[], None]) -> None:
        """Adds a computation."""

    def watch(self, descriptor: int, handler: Callable[[int], None]) -> None:
        """Calls the handler when the descriptor can be read."""

    def watch_writing(self, descriptor: int, *, wanted: bool) -> None:
        """Also when it can be written."""

    def unwatch(self, descriptor: int) -> None:
        """Ends `watch`."""

    def run_blocking(self, timeout_s: float | None, function: Callable[[], None]) -> None:
        """Runs a function in the thread."""


class ChannelServer:
    """Listens on one socket, and answers each call once.

    Args:
        worker: the thread that computes.
        compute: the model.
        path: of the socket, in a folder that only this user can enter.
        replica: who this is, for the greeting.
        meter: hears of every call.
    """

    def __init__(
        self, worker: Worker, compute: Compute, path: Path, replica: str, meter: LoadMeter
    ) -> None:
        self._worker = worker
        self._compute = compute
        self._path = path
        self._meter = meter
        self._replica = replica
        self._loop = asyncio.get_running_loop()
        self._links: set[_Link] = set()
        self._left = asyncio.Event()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._listener.setblocking(False)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(_BACKLOG)
        self._loop.add_reader(self._listener, self._accept)
        self._beats = asyncio.create_task(self._beat())

    @property
    def connections(self) -> int:
        """Ingresses that are connected."""
        return len(self._links)

    async def drain(self, timeout_s: float) -> None:
        """Takes no new connections and asks the ingresses to send no more calls.

        Each of them closes its connection when it has its answers; this returns when all have, or
        after `timeout_s`.
        """
        self._stop_listening()
        for link in list(self._links):
            link.send([_DRAINING])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._links:
                    self._left.clear()
                    await self._left.wait()
        self._beats.cancel()
        for link in list(self._links):
            with contextlib.suppress(TimeoutError):
                await asyncio.to_thread(self._worker.run_blocking, 1.0, link.close)

    def _stop_listening(self) -> None:
        self._loop.remove_reader(self._listener)
        self._path.unlink(missing_ok=True)
        # Who connected just now is greeted, and told at once that this replica goes.
        self._accept()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                self._welcome(peer)

    def _welcome(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, user, _ = _CREDENTIALS.unpack(credentials)
        if user != os.geteuid():
            logger.warning("a stranger was refused", extra={"action": "channel"})
            peer.close()
            return
        maps = SegmentMaps(pid)
        link = _Link(peer, maps, self._worker, self._compute, self._meter, self._forget)
        self._links.add(link)
        link.send(greeting_frame(self._replica, shares_memory=maps.reachable))
        link.open()

    def _forget(self, link: _Link) -> None:
        """Called in the compute thread."""
        self._links.discard(link)
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._left.set)

    async def _beat(self) -> None:
        while True:
            self._beat_all()
            await asyncio.sleep(BEAT_S)

    def _beat_all(self) -> None:
        for link in list(self._links):
            link.beat()


class _Link:
    """One ingress. Read in the compute thread; written by that thread and by the event loop."""

    def __init__(
        self,
        peer: socket.socket,
        maps: SegmentMaps,
        worker: Worker,
        compute: Compute,
        meter: LoadMeter,
        on_close: Callable[[_Link], None],
    ) -> None:
        self._socket = peer
        self._maps = maps
        self._worker = worker
        self._compute = compute
        self._meter = meter
        self._on_close = on_close
        self._reader = FrameReader()
        self._calls: dict[int, _Call] = {}
        self._unsent: deque[Buffer] = deque()
        self._writing = Lock()
        self._closed = False
        self._source = object()
        """For the meter, which remembers it for longer than this link lives."""

    def open(self) -> None:
        """Has the compute thread look after the socket; no need to wait for it."""
        self._worker.watch(self._socket.fileno(), self._on_event)

    def send(self, parts: list[Buffer], patience_s: float = 0.0) -> None:
        """Writes, or keeps what the socket does not take. Never raises.

        Args:
            parts: a frame.
            patience_s: wait so long for a socket that is full.
        """
        with self._writing:
            if not self._closed:
                waiting = bool(self._unsent)
                self._unsent.extend(parts)
                if not waiting:
                    self._flush(patience_s)

    def beat(self) -> None:
        """Says that this process lives, or goes on with an answer, which says so too."""
        with self._writing:
            if not self._closed:
                if not self._unsent:
                    self._unsent.append(_BEAT)
                self._flush()

    def close(self) -> None:
        """Ends the connection; from the compute thread only."""
        with self._writing:
            if self._closed:
                return
            self._closed = True
            self._unsent.clear()
        self._worker.unwatch(self._socket.fileno())
        self._socket.close()
        for call in self._calls.values():
            call.cancelled = True
        self._meter.left(len(self._calls))
        self._calls.clear()
        self._on_close(self)

    def _flush(self, patience_s: float = 0.0) -> None:
        deadline = monotonic() + patience_s if patience_s else 0.0
        try:
            while self._unsent:
                try:
                    self._write()
                except BlockingIOError:
                    left_s = deadline - monotonic()
                    if left_s <= 0 or not self._writable(left_s):
                        self._worker.watch_writing(self._socket.fileno(), wanted=True)
                        return
        except OSError:
            self._unsent.clear()
            # The compute thread hears of it and closes; half a frame may have been sent.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _writable(self, timeout_s: float) -> bool:
        waiting = poll()
        waiting.register(self._socket, POLLOUT)
        return bool(waiting.poll(timeout_s * 1000.0))

    def _write(self) -> None:
        unsent = self._unsent
        parts = list(unsent) if len(unsent) <= _MAX_BUFFERS else list(unsent)[:_MAX_BUFFERS]
        sent = self._socket.sendmsg(parts)
        while unsent and sent >= len(unsent[0]):
            sent -= len(unsent.popleft())
        if sent:
            unsent[0] = memoryview(unsent[0])[sent:]

    def _on_event(self, events: int) -> None:
        if events & EPOLLOUT:
            with self._writing:
                self._worker.watch_writing(self._socket.fileno(), wanted=False)
                self._flush()
        if events & ~EPOLLOUT:
            self._read(gone=bool(events & (EPOLLERR | EPOLLHUP)))

    def _read(self, *, gone: bool) -> None:
        try:
            count = self._socket.recv_into(self._reader.space())
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if not count:
            self.close()
            return
        try:
            for frame in self._reader.received(count):
                self._take(frame)
        except FrameError as error:
            logger.warning("a bad frame: %s", error, extra={"action": "channel"})
            gone = True
        except Exception:  # it would end the thread that all ingresses share: no memory, say
            logger.exception("a frame could not be taken", extra={"action": "channel"})
            gone = True
        if gone:
            self.close()

    def _take(self, frame: Frame) -> None:
        if frame.kind is Kind.CALL:
            if len(self._calls) >= _MAX_CALLS or frame.call in self._calls:
                self.send(failure_frame(frame.call, Overloaded("too many calls at once")))
                return
            try:
                batch, received = read_call(frame, self._maps)
            except OSError as error:
                raise FrameError(f"a segment cannot be read: {error}") from error
            call = self._calls[frame.call] = _Call(self, frame.call, batch, received)
            waited_s = monotonic() - received
            self._meter.arrived(self._source, sum(batch.rows), batch.backlog, waited_s)
            self._worker.enqueue(call.run)
        elif frame.kind is Kind.CANCEL:
            known = self._calls.get(frame.call)
            if known is not None:
                known.cancelled = True
        else:
            raise FrameError(f"an ingress does not send {frame.kind.name}")

    def answer(self, call: _Call) -> None:
        """Computes a call and sends what comes of it; runs in its turn in the compute thread."""
        if self._closed:
            return
        # The next computation may be long: an answer that the socket does not take at once should
        # not wait for it. An ingress that reads at all takes even a large one within this time.
        self.send(self._answer(call), _PATIENCE_S)
        if self._calls.pop(call.number, None) is not None:
            self._meter.left()

    def _answer(self, call: _Call) -> list[Buffer]:
        if call.cancelled:
            return failure_frame(call.number, ModelFailed("cancelled"))
        try:
            return result_frame(call.number, self._compute(call.batch, call.received))
        except ServeAppError as error:
            return failure_frame(call.number, error)
        except Exception:
            logger.exception("a call failed", extra={"action": "channel"})
            return failure_frame(call.number, ModelFailed("the model failed to compute this"))


class _Call:
    """One batch that waits for the model."""

    __slots__ = ("batch", "cancelled", "link", "number", "received")

    def __init__(self, link: _Link, number: int, batch: InferenceBatch, received: float) -> None:
        self.link = link
        self.number = number
        self.batch = batch
        self.received = received
        self.cancelled = False

    def run(self) -> None:
        """Its turn has come."""
        self.link.answer(self)
