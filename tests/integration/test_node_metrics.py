"""One exposition for several real processes on one port, while they come, go and are killed."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

REQUESTS = "serve_app_request_duration_seconds_count"
FLUSHED_AFTER_S = 15.0


class Worker:
    def __init__(self, folder: Path, port: int) -> None:
        self.errors = folder.parent / f"{time.monotonic_ns()}.err"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.metrics_process", folder, str(port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=Path(__file__).parents[2],
            )

    def ready(self) -> None:
        assert self._pipe(self.process.stdout).readline() == "ready\n"

    def finish(self, count: int) -> None:
        self._pipe(self.process.stdin).write(f"{count}\n")
        self._pipe(self.process.stdin).flush()
        assert self._pipe(self.process.stdout).readline() == "done\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> list[dict[str, object]]:
        """Ends it in good order, if it still lives; what it logged."""
        self._pipe(self.process.stdin).close()
        self.process.wait(20)
        self._pipe(self.process.stdout).close()
        return [json.loads(line) for line in self.errors.read_text().splitlines()]

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


class Node:
    """Starts workers and scrapes whichever of them the kernel picks."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.workers: list[Worker] = []
        self.last: dict[tuple[str, ...], float] = {}

    def start(self, count: int) -> list[Worker]:
        workers = [Worker(self.folder, self.port) for _ in range(count)]
        self.workers += workers
        for worker in workers:
            worker.ready()
        return workers

    def scrape(self) -> dict[str, float]:
        """Totals by sample name; fails if any counter went back."""
        text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", trust_env=False).text
        totals: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = (sample.name, *sample.labels.values())
                totals[sample.name] = totals.get(sample.name, 0) + sample.value
                if family.type in ("histogram", "counter"):
                    assert sample.value >= self.last.get(key, 0), key
                    self.last[key] = sample.value
        assert {key[0] for key in self.last} <= set(totals), "a family vanished"
        return totals

    def wait_for(self, name: str, value: float) -> None:
        """Every scrape in a row of ten says so: whoever answers, answers for all."""
        deadline = time.monotonic() + FLUSHED_AFTER_S
        hits = 0
        while hits < 10:
            found = self.scrape().get(name, 0)
            assert found <= value or name != REQUESTS
            hits = hits + 1 if found == value else 0
            assert time.monotonic() < deadline, f"{name} is {found}, not {value}"
            if not hits:
                time.sleep(0.05)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        probe.bind(("127.0.0.1", 0))
        result = Node(tmp_path / "metrics", probe.getsockname()[1])
        yield result
        for worker in result.workers:
            worker.kill()
            worker.close()


def test_counters_never_go_back_while_processes_come_and_go(node: Node) -> None:
    first, second, third = node.start(3)
    first.finish(100)
    second.finish(20)
    third.finish(3)
    node.wait_for(REQUESTS, 123)
    assert node.scrape()["serve_app_ingress_processes"] == 3

    second.kill()
    node.wait_for("serve_app_ingress_processes", 2)
    node.wait_for(REQUESTS, 123)
    node.wait_for("serve_app_batches_total", 123)
    node.wait_for("serve_app_channel_fallbacks_total", 123)

    logged = first.close()
    assert first.process.returncode == 0
    assert sum(line["logger"] == "serve_app.access" for line in logged) == 100
    node.wait_for("serve_app_ingress_processes", 1)
    node.wait_for(REQUESTS, 123)

    (fourth,) = node.start(1)
    fourth.finish(1000)
    third.finish(1)
    node.wait_for(REQUESTS, 1124)
    assert len(list(node.folder.glob("[0-9]*.json"))) == 2


def test_the_folder_outlives_all_processes(node: Node) -> None:
    for _ in range(2):
        (worker,) = node.start(1)
        worker.finish(50)
        worker.close()
    (last,) = node.start(1)
    node.wait_for(REQUESTS, 100)
    last.close()


def test_a_killed_process_loses_at_most_what_nobody_has_seen(node: Node) -> None:
    one, two = node.start(2)
    one.finish(10)
    node.wait_for(REQUESTS, 10)
    one.finish(5)
    one.kill()
    assert 10 <= node.scrape()[REQUESTS] <= 15
    two.finish(1)
    assert 11 <= node.scrape()[REQUESTS] <= 16
