"""Every error of the tree, and one of each kind; for the tests of the tree and of its maps."""

from __future__ import annotations

from collections.abc import Iterator

from serve_app import errors
from serve_app.errors import (
    InvalidInput,
    RevisionConflict,
    RevisionNotFound,
    ServeAppError,
    VersionNotFound,
)

_FURTHER: dict[type[ServeAppError], tuple[object, ...]] = {
    InvalidInput: ("b",),
    VersionNotFound: ("b",),
    RevisionNotFound: (7,),
    RevisionConflict: (7, 8),
}
"""Arguments after the first."""


def tree(root: type[ServeAppError] = ServeAppError) -> Iterator[type[ServeAppError]]:
    """The kinds, from the root downward."""
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


def build(kind: type[ServeAppError], text: str) -> ServeAppError:
    """One error of a kind, with this text as its first argument."""
    return kind(text, *_FURTHER.get(kind, ()))
