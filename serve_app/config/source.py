"""Where a value of the composed config came from: a file, or the command line."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from serve_app.config.key_path import KeyPath, depth

COMMAND_LINE = "command line"


@dataclass(frozen=True, slots=True)
class Source:
    """One contribution to the composed config."""

    name: str
    """A file as people see it, or the command line."""
    tree: Any
    """What it sets, from the root of the config."""

    @property
    def models(self) -> Collection[str]:
        """The models that it sets."""
        models = self.tree.get("models")
        return models if isinstance(models, dict) else ()


def source_of(path: KeyPath, sources: Sequence[Source]) -> str:
    """The name of the source that is to be changed to put a key right.

    A key that is set in several sources has its value from the last of them. A key that is set in
    none belongs where its nearest parent was first set.

    Args:
        path: the key.
        sources: in the order in which they were composed, the strongest last.
    """
    depths = [depth(source.tree, path) for source in sources]
    deepest = max(depths)
    matching = [source for source, reach in zip(sources, depths, strict=True) if reach == deepest]
    return matching[-1 if deepest == len(path) else 0].name
