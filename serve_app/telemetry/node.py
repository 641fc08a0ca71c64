"""The metrics of all processes of a node, brought together in one folder.

Several ingress processes share one metrics port, so a scrape reaches any of them and each must be
able to answer for all. Every process keeps a snapshot file of its own up to date; who is scraped
sums them up. When a process has died its counters move into `retired.json`, so that no counter of
the node ever goes back; its gauges vanish with it. The folder must be local to the node.
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import orjson

from serve_app.domain.inference import VersionKey
from serve_app.process import own_name, owner
from serve_app.telemetry.metrics import (
    PROCESS_GAUGES,
    Counts,
    Gauges,
    Histogram,
    Histograms,
    RequestMetrics,
)
from serve_app.telemetry.names import COUNTERS, HISTOGRAMS

logger = logging.getLogger(__name__)

_RETIRED = "retired.json"


class Snapshot(NamedTuple):
    """One process at one moment, ready to be written."""

    number: int
    payload: bytes


@dataclass(slots=True)
class NodeTotals:
    """The node at one moment: histograms and counters summed up, gauges by process id."""

    histograms: Histograms = field(default_factory=dict)
    counters: Counts = field(default_factory=dict)
    gauges: dict[int, Gauges] = field(default_factory=dict)


class NodeMetrics:
    """This process' part in the metrics of its node.

    `snapshot` belongs to the event loop that counts; `write` and `totals` touch the disk and
    belong into a thread.
    """

    def __init__(self, directory: Path, metrics: RequestMetrics) -> None:
        self._directory = directory
        self._metrics = metrics
        self._file = directory / f"{own_name()}.json"
        self._number = 0
        self._written = Snapshot(0, b"")
        self._writing = Lock()

    def open(self) -> None:
        """Makes the folder.

        Raises:
            OSError: it cannot be made or written to.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        with self._locked():
            return

    def snapshot(self, *, closing: bool = False) -> Snapshot:
        """What this process has counted so far; without gauges when it is about to end."""
        self._number += 1
        gauges = None if closing else _encode_gauges(self._metrics.gauges())
        content = {
            "histograms": _encode(self._metrics.histograms()),
            "counters": _encode_counts(self._metrics.counters()),
            "gauges": gauges,
        }
        return Snapshot(self._number, orjson.dumps(content))

    def write(self, snapshot: Snapshot) -> None:
        """Puts a snapshot into this process' file, unless a newer or equal one is there.

        Raises:
            OSError: the disk refuses it.
        """
        with self._writing:
            if snapshot.number <= self._written.number:
                return
            if snapshot.payload != self._written.payload:
                _replace(self._file, snapshot.payload)
            self._written = snapshot

    def totals(self) -> NodeTotals:
        """Sums up all processes, and retires the dead ones.

        Raises:
            OSError: the folder cannot be read.
        """
        with self._locked():
            retired = _read(self._directory / _RETIRED)
            # In there already, but not deleted: the last retirement was cut short.
            retiring = set(retired.get("retiring") or ())
            gone, totals = NodeTotals(), NodeTotals()
            _add(gone, retired)
            dead: list[Path] = []
            for path in sorted(self._directory.glob("[0-9]*-[0-9]*.json")):
                pid = owner(path.stem)  # before it is read: what a dead process wrote is final
                if pid is None:
                    dead.append(path)
                    if path.name not in retiring:
                        _add(gone, _read(path))
                    continue
                content = _read(path)
                _add(totals, content)
                if content.get("gauges"):
                    totals.gauges[pid] = _decode_gauges(content["gauges"])
            if dead:
                self._retire(dead, gone)
            _add_histograms(totals.histograms, gone.histograms)
            _add_counts(totals.counters, gone.counters)
        return totals

    def _retire(self, dead: list[Path], gone: NodeTotals) -> None:
        """Keeps the counters of dead processes; a crash between the steps counts nothing twice."""
        content = {
            "histograms": _encode(gone.histograms),
            "counters": _encode_counts(gone.counters),
            "retiring": [path.name for path in dead],
        }
        try:
            _replace(self._directory / _RETIRED, orjson.dumps(content))
            for path in dead:
                path.unlink()
        except OSError:
            # The totals are right all the same, and the next scrape tries again.
            logger.warning("cannot retire", extra={"action": "metrics"}, exc_info=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process of the node at a time; the lock ends with its holder."""
        with (self._directory / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _replace(path: Path, payload: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(payload)
    temporary.replace(path)


def _read(path: Path) -> dict[str, Any]:
    """A file's content; empty when it is missing or damaged, as after a power cut."""
    try:
        content = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except orjson.JSONDecodeError:
        logger.warning("a damaged file is left out: %s", path.name, extra={"action": "metrics"})
        return {}
    return content if isinstance(content, dict) else {}


def _encode(histograms: Histograms) -> dict[str, list[Any]]:
    return {
        name: [[labels, each.counts, each.total] for labels, each in family.items()]
        for name, family in histograms.items()
    }


def _decode(content: dict[str, Any]) -> Histograms:
    """The series of a file; those of other code, with other buckets or labels, are left out."""
    histograms: Histograms = {}
    for name, rows in (content.get("histograms") or {}).items():
        kind = HISTOGRAMS.get(name)
        if kind is None:
            continue
        family = histograms[name] = {}
        for labels, counts, total in rows:
            if len(labels) == len(kind.labels) and len(counts) == len(kind.bounds) + 1:
                series = family[tuple(labels)] = Histogram(kind.bounds)
                series.counts, series.total = counts, total
    return histograms


def _encode_counts(counts: Counts) -> dict[str, list[Any]]:
    return {name: list(family.items()) for name, family in counts.items()}


def _decode_counts(content: dict[str, Any]) -> Counts:
    """The counters of a file; those of other code, with other labels, are left out."""
    counts: Counts = {}
    for name, rows in (content.get("counters") or {}).items():
        kind = COUNTERS.get(name)
        if kind is not None:
            counts[name] = {
                tuple(labels): count for labels, count in rows if len(labels) == len(kind.labels)
            }
    return counts


def _add(totals: NodeTotals, content: dict[str, Any]) -> None:
    """Adds what a file has counted, as far as this code knows it."""
    _add_histograms(totals.histograms, _decode(content))
    _add_counts(totals.counters, _decode_counts(content))


def _add_counts(totals: Counts, more: Counts) -> None:
    for name, family in more.items():
        sums = totals.setdefault(name, {})
        for labels, count in family.items():
            sums[labels] = sums.get(labels, 0) + count


def _add_histograms(totals: Histograms, more: Histograms) -> None:
    for name, family in more.items():
        sums = totals.setdefault(name, {})
        for labels, each in family.items():
            known = sums.setdefault(labels, Histogram(each.bounds))
            known.counts = [a + b for a, b in zip(known.counts, each.counts, strict=True)]
            known.total += each.total


def _encode_gauges(gauges: Gauges) -> dict[str, Any]:
    return asdict(gauges) | {
        "queue_depth_rows": [[*key, rows] for key, rows in gauges.queue_depth_rows.items()]
    }


def _decode_gauges(content: dict[str, Any]) -> Gauges:
    """The gauges that this code knows: another process may run other code during an upgrade."""
    depths = content.get("queue_depth_rows") or ()
    known = {name: content[name] for name in PROCESS_GAUGES if name in content}
    return Gauges(
        queue_depth_rows={VersionKey(model, version): rows for model, version, rows in depths},
        **known,
    )
