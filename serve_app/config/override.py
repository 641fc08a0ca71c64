"""Overrides on the command line: ``KEY=VALUE``, ``+KEY=VALUE`` to add, ``~KEY`` to remove.

Which key an override means is decided here and not by Hydra, so that names with dashes and dots can
be overridden, keys that a file leaves to their defaults need no ``+``, and a mistake is described
like one in a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serve_app.config.key_path import assign, depth, locate, lookup, nested, remove, split
from serve_app.config.problem import Problem, choices, quote
from serve_app.config.source import COMMAND_LINE, Source

_LINES = re.compile(r"\s*\n\s*")
_OVERRIDE = re.compile(r"(?P<mode>\+\+|\+|~)?(?P<key>[^=]*)(?:=(?P<value>.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Override:
    """One override: a choice from a group, or a value."""

    mode: str
    """What stands before the key: nothing, ``+``, ``++`` or ``~``."""
    key: str
    value: Any
    """None as well for ``~KEY`` without a value."""

    def problem(self, text: str) -> Problem:
        """A problem of this override."""
        return Problem((), text, COMMAND_LINE, self.key)

    def selection(self) -> str:
        """A choice from a group, as Hydra reads it."""
        if self.value is None:
            return f"{self.mode}{self.key}"
        if isinstance(self.value, list):
            return f"{self.mode}{self.key}=[{','.join(map(quoted, self.value))}]"
        return f"{self.mode}{self.key}={quoted(self.value)}"


def quoted(text: str) -> str:
    """A text in quotes, as Hydra reads it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def read_override(text: str, read_value: Callable[[str], Any]) -> Override | Problem:
    """Reads one override.

    Args:
        text: as it stands on the command line.
        read_value: reads the value in Hydra's grammar; raises ValueError.
    """
    match = _OVERRIDE.fullmatch(text)
    mode, key, value = match.group("mode", "key", "value") if match else (None, text, None)
    override = Override(mode or "", key.strip(), None)
    if not override.key:
        return Problem((), "must be written KEY=VALUE, such as http.port=8080.", COMMAND_LINE, '""')
    if value is None and mode != "~":
        return override.problem("must be written KEY=VALUE, such as http.port=8080.")
    if value is not None and value.lstrip()[:1] in ("{", "["):
        value = _LINES.sub(" ", value)  # Hydra's grammar knows no lines
    try:
        return (
            override if value is None else Override(override.mode, override.key, read_value(value))
        )
    except ValueError as exc:
        return override.problem(str(exc))


def wrong_choices(override: Override, groups: Mapping[str, Sequence[str]]) -> list[Problem]:
    """What a choice from a group names that does not exist."""
    if override.mode == "~" and override.value is None:
        return []
    options = groups[override.key]
    chosen = override.value if isinstance(override.value, list) else [override.value]
    return [
        override.problem(f"there is no {quote(option)}. {choices(str(option), options, 'Options')}")
        for option in chosen
        if not isinstance(option, str) or option not in options
    ]


def apply_override(override: Override, tree: Any) -> Source:
    """Puts a value into the composed config.

    Returns:
        What the override sets.

    Raises:
        ValueError: the key cannot be read, leads nowhere, or does not fit the mode.
    """
    path = locate(tree, split(override.key))
    value = override.value
    if override.mode == "~":
        if depth(tree, path) < len(path):
            raise ValueError("is not there, so it cannot be removed.")
        if value is not None and value != lookup(tree, path):
            raise ValueError("has another value, so it is not removed.")
        remove(tree, path)
        return Source(COMMAND_LINE, nested(path, None))
    is_there = lookup(tree, path) is not None
    if override.mode == "+" and is_there and not isinstance(value, dict):
        raise ValueError("is there already; to change it, leave the + out.")
    assign(tree, path, value)
    return Source(COMMAND_LINE, nested(path, value))
