"""Composes the YAML files with Hydra and validates the result: the one place that knows Hydra.

What leaves this module is a frozen `Config` or a ConfigError that names every mistake at once: the
file (or the command line), the key, and what is allowed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from serve_app.config.catalogue import ROOT, Catalogue, open_catalogue, shown
from serve_app.config.home import home_in_environment
from serve_app.config.key_path import KeyPath, assign, nested, spell
from serve_app.config.override import (
    Override,
    apply_override,
    quoted,
    read_override,
    wrong_choices,
)
from serve_app.config.problem import Problem, choices, quote, report
from serve_app.config.root import Config
from serve_app.config.secret import looks_secret
from serve_app.config.source import COMMAND_LINE, Source
from serve_app.config.validation import Tree, validate
from serve_app.errors import ConfigError

PACKAGES = {"env": "_global_", "model": "models"}
"""Group -> where its files stand in the config, if that is not the group's own name."""

_ENVIRONMENT = re.compile(r"""\$\{\s*oc\.env\s*:\s*['"]?([^,}'"\s]+)""")
_MAX_REPEAT = 1_000_000


@dataclass(slots=True)
class _Draft:
    """The config while it is being composed."""

    catalogue: Catalogue
    problems: list[Problem] = field(default_factory=list)
    tree: Tree = field(default_factory=dict)
    """The composed values, interpolations not yet resolved."""
    sources: list[Source] = field(default_factory=list)
    declared: dict[str, str] = field(default_factory=dict)
    """Model -> the selected file that declares it."""


def load_config(overrides: Sequence[str] = (), config_dir: Path | None = None) -> Config:
    """Composes and validates the configuration. Only config files are read, nothing is written.

    Args:
        overrides: as on the command line: a choice from a group such as ``env=production`` or
            ``model=[digits]``, or a value such as ``http.port=8080``.
        config_dir: a folder with further config files, such as ``model/my.yaml``; by default
            `$SERVE_APP_CONFIG_DIR`, if it is set.

    Raises:
        ConfigError: with one paragraph per mistake.
    """
    draft = _Draft(open_catalogue(config_dir))
    groups = draft.catalogue.groups()
    for path, twin in draft.catalogue.shadowed():
        text = f"is not read, for there is {shown(twin)}. Give it another name."
        draft.problems.append(Problem((), text, shown(path), "name"))
    selections, settings = _read(overrides, groups, draft)
    with home_in_environment():
        _compose(selections, draft)
        for setting in settings:
            try:
                draft.sources.append(apply_override(setting, draft.tree))
            except ValueError as exc:
                draft.problems.append(setting.problem(str(exc)))
        values = _resolved(draft)
    config, problems = validate(values, draft.tree, list(groups))
    if config is None or draft.problems:
        raise _error([*draft.problems, *problems], draft.sources)
    return config


def read_config(values: Mapping[str, Any]) -> Config:
    """Validates a whole configuration, as `serve-app config --json` prints it.

    Nothing is composed: no file is read, and `${...}` is text like any other.

    Raises:
        ConfigError: with one paragraph per mistake.
    """
    given = dict(values)
    config, problems = validate(given, given)
    if config is None:
        raise _error(problems, [Source("config", given)])
    return config


def to_json(config: Config) -> Tree:
    """The config as JSON, in the order of the schemas; `read_config` reads it back."""
    return config.model_dump(mode="json", by_alias=True)


def to_yaml(config: Config) -> str:
    """The config as YAML, in the order of the schemas; `Config` reads it back."""
    return yaml.dump(
        to_json(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
    )


def _error(problems: Sequence[Problem], sources: Sequence[Source]) -> ConfigError:
    """All problems; the key of the first is the field."""
    first = problems[0]
    return ConfigError(report(problems, sources), spell(first.path) or first.place)


class _Dumper(yaml.SafeDumper):
    """Writes lists of plain values on one line, and nothing as a reference to something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_sequence(
        self, tag: str, sequence: Iterable[Any], flow_style: bool | None = None
    ) -> yaml.SequenceNode:
        items = list(sequence)
        plain = not any(isinstance(item, list | dict) for item in items)
        return super().represent_sequence(tag, items, flow_style=plain or flow_style)


def _read(
    overrides: Sequence[str], groups: dict[str, list[str]], draft: _Draft
) -> tuple[list[str], list[Override]]:
    """Splits the overrides into choices from groups, as Hydra reads them, and values."""
    selections, settings = [], []
    for text in overrides:
        override = read_override(text, _read_value)
        if isinstance(override, Problem):
            draft.problems.append(override)
        elif override.key not in groups:
            settings.append(override)
        elif wrong := wrong_choices(override, groups):
            draft.problems += wrong
        else:
            selections.append(override.selection())
            package = PACKAGES.get(override.key, override.key)
            draft.sources.append(Source(COMMAND_LINE, {package: None}))
    return selections, settings


def _read_value(text: str) -> Any:
    """Reads the value of an override in Hydra's grammar."""
    try:
        override = OverridesParser.create().parse_override(f"key={text}")
        if not override.is_sweep_override():
            # Through OmegaConf, which refuses what could not stand in a file.
            return _plain(OmegaConf.create({"key": override.value()}))["key"]
    except Exception as exc:  # the parser raises more than it documents
        raise ValueError(
            "the value cannot be read. Put text with special characters into quotes of its own, "
            "as in 'key=\"a=b\"'."
        ) from exc
    raise ValueError("takes one value. A list is written [a,b], text with a comma '\"a,b\"'.")


def _compose(selections: list[str], draft: _Draft) -> None:
    """Lets Hydra compose the files; fills the tree and its sources."""
    if len(draft.catalogue.folders) > 1:
        search = quoted(f"file://{draft.catalogue.folders[1]}")
        selections = [f"hydra.searchpath=[{search}]", *selections]
    OmegaConf.register_new_resolver("repeat", _repeat, replace=True)
    try:
        with initialize_config_dir(str(draft.catalogue.stock), version_base="1.3"):
            draft.tree = _plain(compose(ROOT, selections))
            loader = GlobalHydra.instance().config_loader()
            chosen = loader.compute_defaults_list(ROOT, selections, RunMode.RUN).defaults
        for item in chosen:
            _add_source(item, draft)
    except Exception as exc:  # Hydra raises more than it documents
        problems = [*draft.problems, *_compose_problems(draft.catalogue, exc)]
        raise _error(problems, []) from exc


def _add_source(item: ResultDefault, draft: _Draft) -> None:
    """Remembers what a composed file sets, and checks that it sets it in the right place."""
    name, package = item.config_path or "", item.package or ""
    path = draft.catalogue.find(name)
    if path is None:  # Hydra's own
        return
    content = _plain(OmegaConf.load(path))
    content.pop("defaults", None)
    group, _, option = name.partition("/")
    expected = PACKAGES.get(group, group)
    if option and package != expected.replace("_global_", "") and package.split(".")[0] != expected:
        text = f'the first line of the file must be "# @package {expected}".'
        draft.problems.append(Problem((package,), text, shown(path)))
    source = Source(shown(path), nested(tuple(filter(None, package.split("."))), content))
    draft.sources.append(source)
    # A file may build on another one by its own defaults, so only the selected ones count.
    for model in source.models if group == "model" and item.parent == ROOT else ():
        if model in draft.declared:
            text = f"{draft.declared[model]} declares {model} as well; select one of them."
            draft.problems.append(Problem(("models", model), text, source.name))
        draft.declared[model] = source.name


def _compose_problems(catalogue: Catalogue, exc: Exception) -> list[Problem]:
    """Puts what Hydra raised into words."""
    problems = [problem for path in catalogue.files() for problem in _broken(path)]
    if isinstance(exc, MissingConfigException):
        group, _, option = (exc.missing_cfg_file or "").partition("/")
        asking = (path for path in catalogue.files() if _asks_for(path, option))
        where = shown(next(asking, catalogue.stock))
        options = catalogue.groups().get(group, [])
        text = f"there is no {quote(option)} in {group}. {choices(option, options, 'Options')}"
        problems.append(Problem((), text, where, "defaults"))
    if not problems:
        text = str(exc).strip().partition("\n")[0]
        problems.append(Problem((), text, COMMAND_LINE, "choice of config files"))
    return problems


def _asks_for(path: Path, option: str) -> bool:
    """Whether a file names an option in its defaults list."""
    try:
        entries = _plain(OmegaConf.load(path)).get("defaults", [])
    except Exception:  # reported as broken already
        return False
    named = [value for entry in entries if isinstance(entry, dict) for value in entry.values()]
    return option in [*entries, *named] or any(option in v for v in named if isinstance(v, list))


def _broken(path: Path) -> Iterator[Problem]:
    """What makes a file unreadable."""
    name = shown(path)
    try:
        if not isinstance(OmegaConf.load(path), DictConfig):
            yield Problem((), "must be a mapping of keys to values.", name, "content")
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "content"
        yield Problem((), f"not valid YAML: {exc.problem or exc.context}.", name, place)
    except OmegaConfBaseException as exc:
        place = str(exc.full_key or "content")
        yield Problem((), "not a valid ${...} interpolation.", name, place)
    except (OSError, ValueError, yaml.YAMLError) as exc:
        yield Problem((), f"cannot be read: {type(exc).__name__}.", name, "content")


def _repeat(value: Any, count: int) -> list[Any]:
    """The resolver `${repeat:VALUE,COUNT}`: a list with one value many times."""
    if not isinstance(count, int) or not 0 < count <= _MAX_REPEAT:
        raise ValueError(f"repeat takes a count from 1 to {_MAX_REPEAT}")
    return [value] * count


def _resolved(draft: _Draft) -> Tree:
    """Resolves the interpolations; what cannot be resolved becomes a problem, and null."""
    config = OmegaConf.create(draft.tree)
    for path, text in list(_leaves(draft.tree)):
        reason = _unresolvable(config, path, text)
        if reason is not None:
            draft.problems.append(Problem(path, reason))
            assign(draft.tree, path, None)
    values: Tree = _plain(OmegaConf.create(draft.tree), resolve=True)
    return values


def _leaves(tree: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """All texts with an interpolation, and all values that are declared missing."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from _leaves(value, (*path, index))
    elif isinstance(tree, str) and ("${" in tree or tree == "???"):
        yield path, tree


def _unresolvable(config: Any, path: KeyPath, text: str) -> str | None:
    """Why a text cannot be resolved; None if it can."""
    if text == "???":
        return "must be given."
    variables = _ENVIRONMENT.findall(text)
    for variable in filter(looks_secret, variables):
        return (
            f"{variable} seems to hold a secret, and everybody who can read the config would see "
            "it. Secrets are named, not read, by keys such as database.password_env."
        )
    try:
        for part in path:
            config = config[part]
        if OmegaConf.is_config(config):
            OmegaConf.to_container(config, resolve=True)
    except Exception as exc:  # resolvers may raise anything
        unset = [variable for variable in variables if variable not in os.environ]
        if unset:
            return f"environment variable {', '.join(unset)} is not set."
        if isinstance(exc, InterpolationKeyError):
            return f"{quote(text)} points to a key that does not exist."
        return f"{quote(text)} cannot be resolved."
    return None


def _plain(config: Any, *, resolve: bool = False) -> Any:
    """Builtin types for OmegaConf's."""
    return OmegaConf.to_container(config, resolve=resolve)
