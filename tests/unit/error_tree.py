"""Every error of the tree, and one of each."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from serve_app import errors
from serve_app.errors import ServeAppError


def tree(root: type[ServeAppError] = ServeAppError) -> Iterator[type[ServeAppError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


def build(kind: type[ServeAppError], text: str = "secret /path") -> ServeAppError:
    """An error whose arguments are of the types that its constructor says."""
    if "__init__" not in vars(kind):
        return kind(text)
    values = {"str": text, "str | None": "b", "int": 7}
    return kind(*[values[each.annotation] for each in _parameters(kind)])


def _parameters(kind: type[ServeAppError]) -> list[inspect.Parameter]:
    return list(inspect.signature(kind.__init__).parameters.values())[1:]
