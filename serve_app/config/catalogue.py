"""Which config files there are: the stock ones in `configs/`, and a user's own folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from serve_app.config.problem import Problem, report
from serve_app.config.source import COMMAND_LINE
from serve_app.errors import ConfigError

CONFIG_DIR_VARIABLE = "SERVE_APP_CONFIG_DIR"

STOCK = Path(__file__).resolve().parents[2] / "configs"
"""Lies beside the package, in a checkout as in an installation."""

ROOT = "config"
"""The file that holds the default selection."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The config folders, and the groups and options in them."""

    own: Path | None = None
    """A user's folder with further files, such as ``model/foo.yaml``."""
    stock: Path = STOCK

    @property
    def folders(self) -> tuple[Path, ...]:
        """All folders, in the order in which they are searched."""
        if self.own is None or self.own.resolve() == self.stock:
            return (self.stock,)
        return (self.stock, self.own)

    def groups(self) -> dict[str, list[str]]:
        """Each group with its options, sorted. A subfolder's options are written ``sub/name``."""
        found: dict[str, set[str]] = {}
        for folder in self.folders:
            for path in folder.rglob("*.yaml"):
                group, _, option = (
                    path.relative_to(folder).with_suffix("").as_posix().partition("/")
                )
                if option:
                    found.setdefault(group, set()).add(option)
        return {group: sorted(options) for group, options in sorted(found.items())}

    def find(self, name: str) -> Path | None:
        """The file of an option, such as ``http/default``."""
        candidates = (folder / f"{name}.yaml" for folder in self.folders)
        return next((path for path in candidates if path.is_file()), None)

    def files(self) -> list[Path]:
        """All YAML files."""
        return [path for folder in self.folders for path in sorted(folder.rglob("*.yaml"))]

    def shadowed(self) -> list[tuple[Path, Path]]:
        """The user's files that bear the name of a stock file, with that file."""
        if len(self.folders) == 1:
            return []
        stock, own = self.folders
        twins = ((path, stock / path.relative_to(own)) for path in sorted(own.rglob("*.yaml")))
        return [(path, twin) for path, twin in twins if twin.exists()]


def open_catalogue(config_dir: Path | None) -> Catalogue:
    """The stock files, with a user's folder if one is given here or in `$SERVE_APP_CONFIG_DIR`.

    Raises:
        ConfigError: that folder does not exist.
    """
    where, place = COMMAND_LINE, "--config-dir"
    if config_dir is None and os.environ.get(CONFIG_DIR_VARIABLE):
        config_dir = Path(os.environ[CONFIG_DIR_VARIABLE])
        where, place = "environment", CONFIG_DIR_VARIABLE
    if config_dir is None:
        return Catalogue()
    own = config_dir.expanduser().absolute()
    if not own.is_dir():
        raise ConfigError(report([Problem((), f"{config_dir} is no folder.", where, place)], []))
    return Catalogue(own)


def shown(path: Path) -> str:
    """A path as people see it: relative to the current folder if it lies below it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
