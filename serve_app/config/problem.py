"""What is wrong with a config, in words that say what to change."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from serve_app.config.key_path import KeyPath, lookup, spell
from serve_app.config.keys import allowed_keys
from serve_app.config.model import SHA256_PATTERN, TARGET_PATTERN
from serve_app.config.source import Source, source_of
from serve_app.domain.tensor import NAME_PATTERN

_LONGEST_QUOTE = 60

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
    "mapping": "a mapping",
    "model": "a mapping",
}
"""First word of a pydantic error type -> what was expected."""

_PATTERNS = {
    NAME_PATTERN: "1 to 128 letters, digits, dots, dashes or underscores",
    TARGET_PATTERN: "an import path such as package.module.Class",
    SHA256_PATTERN: "64 hexadecimal digits in lower case",
}

_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to put right."""

    path: KeyPath
    text: str
    where: str | None = None
    """The source, when it is known better than from the path."""
    place: str | None = None
    """What to show instead of the path, such as a line number."""


def report(problems: Iterable[Problem], sources: Sequence[Source]) -> str:
    """All problems, each with its place and what is allowed; the first one of each place counts."""
    lines: dict[str, str] = {}
    for problem in problems:
        where = problem.where or source_of(problem.path, sources)
        lines.setdefault(f"{where}: {problem.place or spell(problem.path)}", problem.text)
    return "\n".join(
        [f"{place}\n  {text}" for place, text in lines.items()] + ["Nothing was changed."]
    )


def from_validation(
    exc: ValidationError, schema: type[BaseModel], given: Any, extra_names: Sequence[str] = ()
) -> list[Problem]:
    """Puts pydantic's errors into words.

    Args:
        exc: what pydantic raised.
        schema: what it validated against.
        given: the config before interpolation, so that no value of the environment is quoted.
        extra_names: further names that may stand at the root.
    """
    problems = []
    errors = exc.errors(include_url=False)
    for error in errors:
        path: KeyPath = error["loc"]
        if error["type"] == "too_short" and any(
            e["loc"][: len(path)] == path != e["loc"] for e in errors
        ):
            continue  # entries that are wrong themselves do not count as entries
        if error["type"] == "extra_forbidden":
            allowed = allowed_keys(schema, path[:-1])
            if len(path) == 1:
                allowed = sorted({*allowed, *extra_names})
            problems.append(Problem(path, f"unknown key. {choices(str(path[-1]), allowed)}"))
        elif path[-1:] == ("[key]",):
            path = (*path[:-2], str(path[-2]))
            problems.append(Problem(path, _key_words(error)))
        else:
            problems.append(Problem(path, _words(error, lookup(given, path))))
    return problems


def choices(given: str, allowed: Sequence[str], label: str = "Allowed") -> str:
    """Lists what is allowed, with the nearest to what was given in front."""
    near = get_close_matches(given, allowed, n=1)
    guess = f'Did you mean "{near[0]}"? ' if near else ""
    return f"{guess}{label}: {', '.join(allowed) or 'none'}."


def quote(value: Any) -> str:
    """A value as it stands in YAML, shortened; of a container its kind only."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str):
        cut = value if len(value) <= _LONGEST_QUOTE else value[:_LONGEST_QUOTE] + "…"
        return json.dumps(cut, ensure_ascii=False)
    return "null" if value is None else str(value).lower()[:_LONGEST_QUOTE]


def _key_words(error: ErrorDetails) -> str:
    """What is wrong with a name that is a key."""
    if error["type"] == "string_type":
        return 'a name must be text. Write it in quotes, such as "1".'
    return _words(error, error["loc"][-2])


def _words(error: ErrorDetails, given: Any) -> str:
    """One error of pydantic in our words."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return "must be given; it has no default."
    if kind == "value_error":
        return str(context["error"]).rstrip(".") + "."
    if kind == "literal_error":
        options = [
            option.strip(" '") for option in context["expected"].replace(" or ", ",").split(",")
        ]
        return f"must not be {quote(given)}. {choices(str(given), options)}"
    if kind == "string_pattern_mismatch":
        expected = _PATTERNS.get(context["pattern"], f"text that matches {context['pattern']}")
    elif kind in _BOUNDS:
        word, key = _BOUNDS[kind]
        expected = f"{word} {context[key]:g}"
    elif kind in ("too_short", "string_too_short"):
        return "must not be empty."
    elif kind.split("_")[0] in _KINDS:
        expected = _KINDS[kind.split("_")[0]]
    else:  # ours, or one that no field of today raises
        return error["msg"]
    number = expected == "text" and isinstance(given, int | float) and not isinstance(given, bool)
    hint = f' Write "{given}" in quotes.' if number else ""
    return f"must be {expected}, not {quote(given)}.{hint}"
