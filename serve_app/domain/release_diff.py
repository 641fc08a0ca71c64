"""What is different between two releases, in words for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from serve_app.domain.release import Release

_BY_NAME = ("candidates", "labels", "mirror")
"""Fields whose entries have a name, and so are compared one by one in words of their own."""


def changes(before: Release | None, after: Release) -> tuple[str, ...]:
    """The differences, weights first; empty if there are none.

    Args:
        before: the former release; None if `after` is the first.
        after: the new one.
    """
    if before is None:
        shares = (f"version {name}: {weight}%" for name, weight in after.weights.items())
        return ("first release", *shares)
    return (
        *_mapping("version", before.weights, after.weights, "%"),
        *_mapping("label", before.labels, after.labels),
        *_mapping("mirror to version", _mirrors(before), _mirrors(after), "%"),
        *_fields("", _rest(before), _rest(after)),
    )


def _mirrors(release: Release) -> dict[str, str]:
    return {each.version: f"{each.percent:g}" for each in release.mirror}


def _rest(release: Release) -> dict[str, Any]:
    return release.model_dump(mode="json", exclude=set(_BY_NAME))


def _mapping(
    what: str, before: Mapping[str, object], after: Mapping[str, object], unit: str = ""
) -> Iterator[str]:
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        if name not in before:
            yield f"{what} {name} added: {new}{unit}"
        elif name not in after:
            yield f"{what} {name} removed"
        elif old != new:
            yield f"{what} {name}: {old}{unit} -> {new}{unit}"


def _fields(path: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys([*before, *after]):
        old, new, where = before.get(name), after.get(name), f"{path}{name}"
        if old == new:
            continue
        if new is None:
            yield f"{where} removed"
        elif old is None:
            yield f"{where} added: {_words(new)}"
        elif isinstance(old, dict) and isinstance(new, dict):
            yield from _fields(f"{where}.", old, new)
        else:
            yield f"{where}: {_words(old)} -> {_words(new)}"


def _words(value: Any) -> str:
    """A value in few words: what is unset goes unsaid."""
    if isinstance(value, dict):
        given = (f"{key} {_words(each)}" for key, each in value.items() if each not in (None, {}))
        return ", ".join(given) or "none"
    if isinstance(value, list):
        return (
            ", ".join(
                f"({_words(each)})" if isinstance(each, dict) else _words(each) for each in value
            )
            or "none"
        )
    return f"{value:g}" if isinstance(value, float) else str(value)
