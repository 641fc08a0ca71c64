"""Paths of keys in nested mappings and lists: read, spelled, followed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

KeyPath = tuple[str | int, ...]

_SEGMENT = re.compile(r'"([^"]+)"|\'([^\']+)\'|\[([^\[\]]+)\]|([^.\[\]"\'\s]+)')
_PLAIN = re.compile(r'[^.\[\]"\'\s]+')


def spell(path: KeyPath) -> str:
    """Writes a path as people do, such as ``models.digits.release.candidates[1].version``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _PLAIN.fullmatch(part) else f'"{part}"'
            text += f".{name}" if text else name
    return text


def split(text: str) -> list[str]:
    """Splits a written path at its dots; a name with a dot inside may stand in quotes or brackets.

    Raises:
        ValueError: the text is no path.
    """
    segments: list[str] = []
    position = 0
    while position < len(text):
        if segments and text[position] == ".":
            position += 1
        elif segments and text[position] != "[":
            break
        match = _SEGMENT.match(text, position)
        if match is None:
            break
        segments.append(next(group for group in match.groups() if group is not None))
        position = match.end()
    if not segments or position < len(text) or text.endswith("."):
        raise ValueError("cannot be read as a key; write it like http.port.")
    return segments


def locate(tree: Any, segments: Sequence[str]) -> KeyPath:
    """Finds the path that a written key means in a tree; its end may be new.

    Names with dots inside, such as the version 1.0, are found without quotes as well.

    Raises:
        ValueError: the key leads through a plain value, or past the end of a list.
    """
    path: list[str | int] = []
    rest = list(segments)
    while rest:
        if isinstance(tree, list):
            if not rest[0].isdecimal() or int(rest[0]) >= len(tree):
                raise ValueError(f"{spell(tuple(path))} has {len(tree)} entries, from [0] on.")
            path.append(int(rest.pop(0)))
            tree = tree[int(path[-1])]
        elif isinstance(tree, dict):
            taken = next(
                (
                    n
                    for n in range(len(rest), 0, -1)
                    if _child(tree, ".".join(rest[:n])) is not None
                ),
                1,
            )
            path.append(".".join(rest[:taken]))
            key = _child(tree, path[-1])
            tree = None if key is None else tree[key]
            del rest[:taken]
        elif tree is None:
            path.append(rest.pop(0))
        else:
            raise ValueError(f"{spell(tuple(path))} is a plain value and has no keys of its own.")
    return tuple(path)


def depth(tree: Any, path: KeyPath) -> int:
    """How many leading parts of the path exist in the tree."""
    for position, part in enumerate(path):
        if isinstance(tree, dict) and (key := _child(tree, part)) is not None:
            tree = tree[key]
        elif isinstance(tree, list) and isinstance(part, int) and part < len(tree):
            tree = tree[part]
        else:
            return position
    return len(path)


def lookup(tree: Any, path: KeyPath) -> Any:
    """The value at a path; None if there is none."""
    if depth(tree, path) < len(path):
        return None
    for part in path:
        tree = tree[_key(tree, part)]
    return tree


def assign(tree: Any, path: KeyPath, value: Any) -> None:
    """Sets the value at a path that `locate` found; a mapping is merged into a mapping."""
    for part in path[:-1]:
        if lookup(tree, (part,)) is None:
            tree[_key(tree, part)] = {}
        tree = tree[_key(tree, part)]
    last = _key(tree, path[-1])
    old = lookup(tree, (last,))
    if isinstance(old, dict) and isinstance(value, dict):
        for key, item in value.items():
            assign(old, (key,), item)
    else:
        tree[last] = value


def remove(tree: Any, path: KeyPath) -> bool:
    """Removes the value at a path; False if there is none."""
    if not path or depth(tree, path) < len(path):
        return False
    parent = lookup(tree, path[:-1])
    del parent[_key(parent, path[-1])]
    return True


def nested(path: KeyPath, value: Any) -> Any:
    """A tree that holds one value, at a path."""
    for part in reversed(path):
        value = {part: value}
    return value


def _key(tree: Any, part: str | int) -> Any:
    """What `part` is in this container: the key that is there, else `part` itself."""
    known = _child(tree, part) if isinstance(tree, dict) else None
    return part if known is None else known


def _child(tree: dict[Any, Any], part: str | int) -> Any:
    """The key of a mapping that is written like `part`: a YAML key may be a number."""
    if part in tree:
        return part
    return next((key for key in tree if str(key) == str(part)), None)
