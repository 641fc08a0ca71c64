"""Makes the weights of the example models: ``python -m serve_app.examples.prepare``.

The files lie in ``<home>/models/digits/<version>/``. What is up to date is left alone, without
importing a machine-learning library.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import NamedTuple

from serve_app.config.home import home_dir

FILES = {"1": "model.skops", "2": "model.safetensors", "3": "model.safetensors"}
"""Version of `digits` -> name of its weights' file."""

FACTS = "model.json"
"""Lies beside the weights; SklearnModel shows it as metadata."""

_SOURCES = ("digits.py", "training.py")
_LIBRARIES = ("scikit-learn", "skops", "safetensors", "torch")


class Prepared(NamedTuple):
    """One version after `prepare_examples`."""

    version: str
    path: Path
    accuracy: float
    trained: bool
    """False if it was up to date."""


def prepare_examples(
    home: Path, force: bool = False, report: Callable[[str], None] = print
) -> list[Prepared]:
    """Trains the versions of `digits` that are missing or out of date.

    Args:
        home: the folder that holds ``models/``.
        force: train all of them.
        report: gets one line per version.

    Returns:
        All versions.
    """
    recipe = recipe_digest()
    prepared = []
    for version, name in FILES.items():
        path = home / "models" / "digits" / version / name
        found = None if force else _up_to_date(path, recipe)
        started = time.monotonic()
        if found is None:
            accuracy = _train(version, path, recipe)
            took = f"trained in {time.monotonic() - started:.1f} s"
        else:
            accuracy, took = found, "up to date"
        report(f"digits {version}: accuracy {accuracy:.4f}, {took} ({path})")
        prepared.append(Prepared(version, path, accuracy, found is None))
    return prepared


def recipe_digest() -> str:
    """Changes with everything that decides the weights: sources and library versions."""
    sha256 = hashlib.sha256()
    for source in _SOURCES:
        sha256.update(Path(__file__).with_name(source).read_bytes())
    for library in _LIBRARIES:
        sha256.update(f"{library}=={installed_version(library)}\n".encode())
    return sha256.hexdigest()


def _up_to_date(path: Path, recipe: str) -> float | None:
    """The recorded accuracy, if the weights are those that the recipe made."""
    try:
        facts = json.loads(path.with_name(FACTS).read_bytes())
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if facts["recipe"] == recipe and facts["sha256"] == digest:
            return float(facts["accuracy"])
    except (OSError, ValueError, KeyError, TypeError):  # missing or damaged: train again
        return None
    return None


def _train(version: str, path: Path, recipe: str) -> float:
    """Trains into a folder beside the target, then moves the files; the facts come last."""
    from serve_app.examples import training

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".training-", dir=path.parent) as folder:
        weights, facts = Path(folder, path.name), Path(folder, FACTS)
        accuracy = training.train(version, training.load_split(), weights)
        record = {
            "accuracy": f"{accuracy:.4f}",
            "recipe": recipe,
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        }
        facts.write_text(json.dumps(record, indent=2) + "\n")
        for file in (weights, facts):
            with file.open("rb") as written:
                os.fsync(written.fileno())
            file.replace(path.with_name(file.name))
    return accuracy


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m serve_app.examples.prepare")
    parser.add_argument("--home", type=Path, default=home_dir(), help="default: %(default)s")
    parser.add_argument("--force", action="store_true", help="train even what is up to date")
    parsed = parser.parse_args(arguments)
    try:
        prepare_examples(parsed.home, parsed.force)
    except OSError as exc:
        print(f"could not write to {parsed.home}: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
