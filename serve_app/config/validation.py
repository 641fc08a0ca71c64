"""From the composed values to a Config, or to everything that is wrong with them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from serve_app.config.key_path import KeyPath, lookup, remove
from serve_app.config.problem import Problem, from_validation, quote
from serve_app.config.root import Config

Tree = dict[str, Any]


def validate(
    values: Tree, given: Tree, groups: Sequence[str] = ()
) -> tuple[Config | None, list[Problem]]:
    """Validates the composed values.

    Args:
        values: with all interpolations resolved.
        given: the same before interpolation, for texts.
        groups: names of the config groups, which may stand at the root as well.

    Returns:
        The config, or None and what is wrong.
    """
    try:
        config = Config.model_validate(values)
    except ValidationError as exc:
        problems = from_validation(exc, Config, given, groups)
        return None, [*problems, *_hidden(values, given, problems)]
    problems = list(_booleans_as_numbers(values, config.model_dump(by_alias=True), given))
    return (None, problems) if problems else (config, [])


def _hidden(values: Tree, given: Tree, known: Sequence[Problem]) -> list[Problem]:
    """Problems that the known ones hide.

    Rules between keys are checked only where each key is right by itself. So what is wrong is left
    out, and what is wrong between the other keys shows.
    """
    rest = copy.deepcopy(values)
    for problem in reversed(known):  # from the end, so that positions in lists hold
        remove(rest, problem.path)
    try:
        config = Config.model_validate(rest)
    except ValidationError as exc:
        return [
            problem
            for problem in from_validation(exc, Config, given)
            if problem.path[:1] == ("models",)
            and lookup(rest, problem.path) is not None  # else it is missing because it was left out
            and not any(_related(problem.path, other.path) for other in known)
        ]
    return list(_booleans_as_numbers(rest, config.model_dump(by_alias=True), given))


def _related(one: KeyPath, other: KeyPath) -> bool:
    """Whether one path is the other, or leads to it."""
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]


def _booleans_as_numbers(
    value: Any, accepted: Any, given: Tree, path: KeyPath = ()
) -> Iterator[Problem]:
    """Finds true and false where a number belongs, which pydantic takes for 1 and 0."""
    if isinstance(value, bool) and isinstance(accepted, int | float):
        if not isinstance(accepted, bool):
            yield Problem(path, f"must be a number, not {quote(lookup(given, path))}.")
    elif isinstance(value, dict) and isinstance(accepted, dict):
        for key in value.keys() & accepted.keys():
            yield from _booleans_as_numbers(value[key], accepted[key], given, (*path, key))
    elif isinstance(value, list) and isinstance(accepted, list | tuple):
        for index, (item, taken) in enumerate(zip(value, accepted, strict=False)):
            yield from _booleans_as_numbers(item, taken, given, (*path, index))
