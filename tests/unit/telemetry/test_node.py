from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from serve_app.domain.inference import VersionKey
from serve_app.telemetry.metrics import Gauges, RequestMetrics
from serve_app.telemetry.names import BATCH_ROWS, CHANNEL_FALLBACKS, LINES_DROPPED, REQUEST_SECONDS
from serve_app.telemetry.node import NodeMetrics, NodeTotals
from tests.unit.telemetry.traces import result, trace

LABELS = ("digits", "2", "http", "ok")
COUNT = len(REQUEST_SECONDS.bounds) + 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "metrics"


@pytest.fixture
def metrics() -> RequestMetrics:
    return RequestMetrics()


@pytest.fixture
def node(folder: Path, metrics: RequestMetrics) -> NodeMetrics:
    result = NodeMetrics(folder, metrics)
    result.open()
    return result


def requests(totals: NodeTotals) -> int:
    series = totals.histograms.get(REQUEST_SECONDS.name, {}).get(LABELS)
    return sum(series.counts) if series is not None else 0


def leave(folder: Path, name: str, count: int, **changes: Any) -> Path:
    """A snapshot as another process would have left it."""
    counts = [0] * COUNT
    counts[3] = count
    content = {
        "histograms": {REQUEST_SECONDS.name: [[LABELS, counts, count * 0.001]]},
        "gauges": {
            "inflight": count,
            "open_connections": 1,
            "route_table_revision": 5,
            "queue_depth_rows": [["digits", "2", 8]],
        },
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content | changes))
    return path


@pytest.fixture
def dead() -> str:
    """The name of a process that has been and is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return f"{process.pid}-1"


@pytest.fixture
def alive() -> str:
    """The name of a living process that is not this one."""
    stat = Path(f"/proc/{os.getppid()}/stat").read_text()
    return f"{os.getppid()}-{stat.rpartition(')')[2].split()[19]}"


def test_a_new_folder_is_empty(node: NodeMetrics) -> None:
    assert node.totals() == NodeTotals()


def test_what_was_counted_comes_back(node: NodeMetrics, metrics: RequestMetrics) -> None:
    metrics.observe_request(trace(), "ok", 0.25)
    metrics.observe_batch(VersionKey("digits", "2"), 7, result())
    node.write(node.snapshot())
    totals = node.totals()
    assert requests(totals) == 1
    assert totals.histograms[REQUEST_SECONDS.name][LABELS].total == 0.25
    assert totals.histograms[BATCH_ROWS.name]["digits", "2"].total == 7
    assert totals.gauges == {os.getpid(): Gauges()}


def test_living_processes_are_summed_up(
    node: NodeMetrics, metrics: RequestMetrics, folder: Path, alive: str
) -> None:
    leave(folder, alive, 10)
    metrics.observe_request(trace(), "ok", 0.25)
    node.write(node.snapshot())
    for _ in range(3):
        totals = node.totals()
        assert requests(totals) == 11
        assert totals.histograms[REQUEST_SECONDS.name][LABELS].total == pytest.approx(0.26)
        assert totals.gauges[os.getppid()] == Gauges(10, 1, 5, {VersionKey("digits", "2"): 8})
        assert set(totals.gauges) == {os.getpid(), os.getppid()}


def test_the_dead_keep_their_counters_and_lose_their_gauges(
    node: NodeMetrics, folder: Path, dead: str
) -> None:
    path = leave(folder, dead, 10)
    for _ in range(3):
        totals = node.totals()
        assert requests(totals) == 10
        assert totals.gauges == {}
        assert not path.exists()


def test_a_recycled_process_id_is_another_process(node: NodeMetrics, folder: Path) -> None:
    path = leave(folder, f"{os.getpid()}-1", 10)
    assert requests(node.totals()) == 10
    assert not path.exists()


def test_a_zombie_is_dead(node: NodeMetrics, folder: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    leave(folder, f"{process.pid}-{stat[19]}", 10)
    assert set(node.totals().gauges) == {process.pid}
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    totals = node.totals()
    assert totals.gauges == {}
    assert requests(totals) == 10
    process.communicate()


def test_a_retirement_that_was_cut_short_counts_nothing_twice(
    node: NodeMetrics, folder: Path, dead: str
) -> None:
    path = leave(folder, dead, 10)
    content = path.read_bytes()
    node.totals()
    # As if the process had been killed between writing the sum and deleting the file.
    path.write_bytes(content)
    assert requests(node.totals()) == 10
    assert not path.exists()
    leave(folder, f"{dead}2", 5)
    assert requests(node.totals()) == 15


def test_a_disk_that_refuses_to_retire_keeps_the_totals_right(
    node: NodeMetrics, folder: Path, dead: str
) -> None:
    path = leave(folder, dead, 10)
    (folder / ".retired.json.tmp").mkdir()
    for _ in range(3):
        assert requests(node.totals()) == 10
    assert path.exists()
    (folder / ".retired.json.tmp").rmdir()
    assert requests(node.totals()) == 10
    assert not path.exists()
    assert requests(node.totals()) == 10


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"null"])
@pytest.mark.parametrize("whose", ["dead", "alive", "retired"])
def test_a_damaged_file_is_left_out(
    node: NodeMetrics,
    metrics: RequestMetrics,
    folder: Path,
    dead: str,
    alive: str,
    whose: str,
    content: bytes,
) -> None:
    name = {"dead": dead, "alive": alive, "retired": "retired"}[whose]
    (folder / f"{name}.json").write_bytes(content)
    metrics.observe_request(trace(), "ok", 0.25)
    node.write(node.snapshot())
    assert requests(node.totals()) == 1


def test_files_of_other_releases_do_no_harm(node: NodeMetrics, folder: Path, alive: str) -> None:
    other = {
        "serve_app_something_else": [[["a"], [1, 2], 3.0]],
        REQUEST_SECONDS.name: [
            [LABELS, [1, 2, 3], 6.0],
            [["digits", "2"], [1] * COUNT, 6.0],
            [LABELS, [1] * COUNT, 6.0],
        ],
    }
    leave(folder, alive, 0, histograms=other, gauges={"inflight": 2, "new_gauge": 1})
    totals = node.totals()
    assert set(totals.histograms) == {REQUEST_SECONDS.name}
    assert requests(totals) == COUNT
    assert totals.gauges[os.getppid()] == Gauges(inflight=2)


def test_other_files_in_the_folder_are_left_alone(node: NodeMetrics, folder: Path) -> None:
    names = {"notes.json", "1-2.json.bak", ".123-4.json.tmp", "x-1.json"}
    for name in names:
        (folder / name).write_text("{}")
    node.totals()
    assert names <= {path.name for path in folder.iterdir()}


def test_an_older_snapshot_never_replaces_a_newer_one(
    node: NodeMetrics, metrics: RequestMetrics
) -> None:
    old = node.snapshot()
    metrics.observe_request(trace(), "ok", 0.25)
    node.write(node.snapshot())
    node.write(old)
    assert requests(node.totals()) == 1


def test_a_file_is_written_only_when_something_changed(
    node: NodeMetrics, metrics: RequestMetrics, folder: Path
) -> None:
    node.write(node.snapshot())
    (path,) = folder.glob("[0-9]*.json")
    before = path.stat().st_ino
    node.write(node.snapshot())
    assert path.stat().st_ino == before
    metrics.observe_request(trace(), "ok", 0.25)
    node.write(node.snapshot())
    assert requests(node.totals()) == 1


def test_a_snapshot_that_could_not_be_written_is_made_up_for(
    node: NodeMetrics, metrics: RequestMetrics, folder: Path
) -> None:
    metrics.observe_request(trace(), "ok", 0.25)
    snapshot = node.snapshot()
    folder.rename(folder.with_name("away"))
    with pytest.raises(FileNotFoundError):
        node.write(snapshot)
    folder.with_name("away").rename(folder)
    node.write(node.snapshot())
    assert requests(node.totals()) == 1


def test_a_process_that_ends_takes_its_gauges_along(
    node: NodeMetrics, metrics: RequestMetrics
) -> None:
    metrics.observe_request(trace(), "ok", 0.25)
    node.write(node.snapshot())
    node.write(node.snapshot(closing=True))
    totals = node.totals()
    assert requests(totals) == 1
    assert totals.gauges == {}


def test_scrapes_at_the_same_time_agree(node: NodeMetrics, folder: Path) -> None:
    for number in range(200):
        leave(folder, f"{10_000_000 + number}-1", 1)
    seen: list[int] = []
    threads = [
        threading.Thread(target=lambda: seen.append(requests(node.totals()))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [200] * 8
    assert not list(folder.glob("[0-9]*.json"))


def test_a_folder_that_cannot_be_made(tmp_path: Path, metrics: RequestMetrics) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        NodeMetrics(tmp_path / "file" / "metrics", metrics).open()


def test_counters_are_summed_up_and_outlive_their_process(
    node: NodeMetrics, metrics: RequestMetrics, folder: Path, alive: str, dead: str
) -> None:
    metrics.count_dropped_line()
    metrics.count_fallback(VersionKey("digits", "2"), "busy")
    node.write(node.snapshot())
    lines, fallbacks = LINES_DROPPED.name, CHANNEL_FALLBACKS.name
    leave(folder, alive, 1, counters={lines: [[[], 10]], "of_other_code": 5})
    labels = ["digits", "2", "busy"]
    other_labels = ["digits", "busy"]
    counters = {lines: [[[], 100]], fallbacks: [[labels, 2], [other_labels, 7]]}
    leave(folder, dead, 1, counters=counters)
    for _ in range(3):
        found = {name: family for name, family in node.totals().counters.items() if family}
        assert found == {lines: {(): 111}, fallbacks: {tuple(labels): 3}}
