"""Servers that are measured in turns at the same points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from benchmarks.measure import Sample, summarize
from benchmarks.running import Running
from benchmarks.settings import Settings

Start = Callable[[], AbstractContextManager[Running]]
Server = TypeVar("Server")


class Comparison:
    """Collects the samples of several servers (or ways to call one) at several points.

    Args:
        title: of the scenario, for messages.
        axis: what a point is, such as ``connections``.
        settings: how often to measure.
    """

    def __init__(self, title: str, axis: str, settings: Settings) -> None:
        self._title, self._axis, self._settings = title, axis, settings
        self._samples: dict[str, dict[str, list[Sample]]] = {}

    def in_turns(
        self,
        servers: Mapping[str, Callable[[], AbstractContextManager[Server]]],
        visit: Callable[[str, Server, int], None],
    ) -> None:
        """Starts the servers one at a time, in an order that rotates with each repeat.

        Args:
            servers: how to start each of them.
            visit: measures one; gets its name, the running server and the number of the repeat.
        """
        for repeat in range(self._settings.repeats):
            for name in rotated(list(servers), repeat):
                self._settings.tell(
                    f"{self._title}, repeat {repeat + 1} of {self._settings.repeats}: {name}"
                )
                with servers[name]() as server:
                    visit(name, server, repeat)

    def add(self, name: str, point: object, sample: Sample) -> None:
        """Keeps one sample."""
        self._samples.setdefault(name, {}).setdefault(str(point), []).append(sample)

    def result(self, **facts: Any) -> dict[str, Any]:
        """What goes into the report: medians with spread, and these facts."""
        return {
            **facts,
            "axis": self._axis,
            "seconds": self._settings.seconds,
            "repeats": self._settings.repeats,
            "servers": {
                name: {point: summarize(samples) for point, samples in by_point.items()}
                for name, by_point in self._samples.items()
            },
        }


def rotated(names: list[str], turn: int) -> list[str]:
    """The names, beginning with another one in each turn."""
    first = turn % len(names)
    return names[first:] + names[:first]
