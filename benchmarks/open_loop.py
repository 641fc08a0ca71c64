"""An open loop: requests leave at fixed times, whether the server keeps up or not.

In a closed loop (wrk) a server that stalls is asked less, so the stall hides. Here request n is due
at n ÷ rate, and its latency counts from then, also when it had to wait for a free connection or for
this process. wrk cannot do that: it knows no due times, and its delays are whole milliseconds.

One process, one thread, no event loop: `select` with a timeout in microseconds (those of epoll and
of asyncio are milliseconds). At 8,000 requests/s it uses 52 µs of CPU per request, 29 of them in
system calls, and requests leave 0.2 ms late at worst (p99) on a machine that is not full. `cpu_us`
and `sent_late_p99_ms` tell what it was in a run. It stands for machines elsewhere, so where it is
allowed to it takes precedence over the server, whose processes would delay it otherwise.

Run it: python -m benchmarks.open_loop --port 8000 --rate 1000 --seconds 10
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import select
import signal
import socket
import time
from array import array
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks import digits

CONNECTIONS = 128
BEGUN = "begun"
"""Printed when the first request leaves."""
LATE_S = 10.0
"""How long the last answers may take after the last request."""
_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


@dataclass(frozen=True, slots=True)
class OpenLoopResult:
    """What one run measured."""

    requests: int
    answered: int
    refused: int
    lost: int
    """Requests whose connection broke, or that had no answer at the end."""
    seconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    sent_late_p99_ms: float
    """How late requests left, because of this process or for want of a free connection."""
    cpu_us: float
    """That the load generator itself used per request."""


class Connection:
    """One keep-alive connection with at most one request in flight."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.due = 0.0
        self._received = b""
        self.connect()

    def connect(self) -> None:
        """Connects, or connects again."""
        self._socket = socket.create_connection(("127.0.0.1", self._port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self._socket.fileno()
        self._received = b""

    def send(self, request: bytes, due: float) -> None:
        """Sends a request; small enough to fit into the socket's buffer."""
        self.due = due
        self._socket.sendall(request)

    def receive(self) -> int:
        """The status of the answer if it is complete, 0 if not yet.

        Raises:
            ConnectionError: the server has closed the connection.
        """
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionResetError("closed by the server")
        self._received += data
        status = complete(self._received)
        if status:
            self._received = b""
        return status

    def close(self) -> None:
        """Closes it."""
        self._socket.close()


def complete(received: bytes) -> int:
    """The status of an answer of which these bytes have come, 0 as long as some are missing."""
    end = received.find(_HEAD_END)
    if end < 0:
        return 0
    head = received[:end].lower()
    start = head.find(_LENGTH)
    length = int(head[start + len(_LENGTH) :].split(b"\r\n", 1)[0]) if start >= 0 else 0
    return int(head[9:12]) if len(received) >= end + len(_HEAD_END) + length else 0


class OpenLoop:
    """Sends requests in turn at a constant rate.

    Args:
        port: of the server, on this machine.
        requests: whole HTTP requests.
        rate: requests per second.
        seconds: for how long requests become due.
        connections: most requests in flight.
    """

    def __init__(
        self,
        port: int,
        requests: Sequence[bytes],
        rate: float,
        seconds: float,
        connections: int = CONNECTIONS,
    ) -> None:
        self._requests, self._rate = requests, rate
        self._total = max(1, round(rate * seconds))
        self._idle = deque(Connection(port) for _ in range(connections))
        self._busy: dict[int, Connection] = {}
        self._last = 0.0
        self._latencies, self._lateness = array("d"), array("d")
        self._sent = self._refused = self._lost = 0

    def stop(self) -> None:
        """Sends no more; `run` waits for the last answers."""
        self._total = max(1, self._sent)
        self._last = time.perf_counter() + LATE_S

    def run(self) -> OpenLoopResult:
        """Runs to the end."""
        began, cpu = time.perf_counter(), time.process_time()
        self._loop(began)
        ended, used = time.perf_counter(), time.process_time() - cpu
        self._lost += len(self._busy)
        for connection in (*self._busy.values(), *self._idle):
            connection.close()
        return self._result(ended - began, used)

    def _loop(self, began: float) -> None:
        clock = time.perf_counter
        self._last = began + self._total / self._rate + LATE_S
        while self._sent < self._total or self._busy:
            now = clock()
            if now > self._last:
                return
            self._send_what_is_due(began, now)
            if self._idle and self._sent < self._total:
                pause = max(0.0, began + self._sent / self._rate - clock())
            else:
                pause = max(0.0, self._last - now)
            readable, _, _ = select.select(self._busy, (), (), pause)
            for file in readable:
                self._receive(self._busy[file], clock())

    def _send_what_is_due(self, began: float, now: float) -> None:
        due = due_by(now - began, self._rate, self._total)
        while self._sent < due and self._idle:
            connection = self._idle.popleft()
            when = began + self._sent / self._rate
            self._lateness.append(now - when)
            request = self._requests[self._sent % len(self._requests)]
            self._sent += 1
            self._busy[connection.file] = connection
            try:
                connection.send(request, when)
            except ConnectionError:
                self._lose(connection)

    def _receive(self, connection: Connection, now: float) -> None:
        try:
            status = connection.receive()
        except ConnectionError:
            self._lose(connection)
            return
        if not status:
            return
        if status == 200:
            self._latencies.append(now - connection.due)
        else:
            self._refused += 1
        del self._busy[connection.file]
        self._idle.append(connection)

    def _lose(self, connection: Connection) -> None:
        self._lost += 1
        del self._busy[connection.file]
        connection.close()
        connection.connect()
        self._idle.append(connection)

    def _result(self, seconds: float, cpu_s: float) -> OpenLoopResult:
        latencies = np.array(self._latencies or [0.0]) * 1e3
        p50, p90, p99 = np.percentile(latencies, (50, 90, 99))
        late = np.percentile(np.array(self._lateness), 99) * 1e3
        return OpenLoopResult(
            requests=self._sent,
            answered=len(self._latencies),
            refused=self._refused,
            lost=self._lost,
            seconds=round(seconds, 3),
            p50_ms=round(float(p50), 3),
            p90_ms=round(float(p90), 3),
            p99_ms=round(float(p99), 3),
            max_ms=round(float(latencies.max()), 3),
            sent_late_p99_ms=round(float(late), 3),
            cpu_us=round(cpu_s / self._sent * 1e6, 1),
        )


def due_by(elapsed: float, rate: float, total: int) -> int:
    """How many requests are due after so many seconds; the first one is due at once."""
    return min(total, int(elapsed * rate) + 1)


def http_request(path: str, body: bytes) -> bytes:
    """A whole request."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def main(arguments: Sequence[str] | None = None) -> None:
    """Posts digits, says when it begins, and prints the result as JSON; SIGTERM ends it early."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.open_loop")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="requests per second")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    options: Any = parser.parse_args(arguments)
    requests = [http_request(digits.PATH, body) for body in digits.bodies()]
    loop = OpenLoop(options.port, requests, options.rate, options.seconds, options.connections)
    signal.signal(signal.SIGTERM, lambda *_: loop.stop())
    gc.disable()  # a pause of ours would count as the server's
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    print(BEGUN, flush=True)
    print(json.dumps(asdict(loop.run())))


if __name__ == "__main__":
    main()
