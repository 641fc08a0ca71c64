"""What is different between two JSON values, key by key, with secrets left out. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from serve_app.config.secret import looks_secret, without_password

HIDDEN = "(hidden)"
SHOWN_CHARACTERS = 30


class Difference(NamedTuple):
    """One key whose value changes; None stands for a key that is not there."""

    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.key} {shown(self.before)} → {shown(self.after)}"


def differences(before: Any, after: Any, key: str = "") -> Iterator[Difference]:
    """The smallest parts that differ, with paths such as `inputs[0].shape`.

    Nobody should put a secret into a config; what looks like one all the same is not repeated.
    """
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in dict.fromkeys([*before, *after]):
            path = f"{key}.{name}" if key else str(name)
            if looks_secret(str(name)) and before.get(name) != after.get(name):
                yield Difference(path, HIDDEN, HIDDEN)
            else:
                yield from differences(before.get(name), after.get(name), path)
    elif _tables(before, after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from differences(old, new, f"{key}[{index}]")
    else:
        yield Difference(key, _safe(before), _safe(after))


def shown(value: Any) -> str:
    """A value for a line of text: short, and JSON where it is not plain text."""
    if value is None:
        return "none"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split())
    if len(text) <= SHOWN_CHARACTERS:
        return text or '""'
    # Paths and URIs differ at their ends.
    half = (SHOWN_CHARACTERS - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def _tables(before: Any, after: Any) -> bool:
    """Whether both are lists of as many objects, which can be compared one by one."""
    return (
        isinstance(before, list)
        and isinstance(after, list)
        and len(before) == len(after)
        and all(isinstance(each, Mapping) for each in [*before, *after])
    )


def _safe(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            name: HIDDEN if looks_secret(str(name)) else _safe(each) for name, each in value.items()
        }
    if isinstance(value, list):
        return [_safe(each) for each in value]
    if isinstance(value, str) and "://" in value:
        try:
            return without_password(value)
        except ValueError:
            return HIDDEN
    return value
