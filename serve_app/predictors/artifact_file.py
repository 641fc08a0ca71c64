"""Finds the one file of an artifact that a predictor reads."""

from __future__ import annotations

from pathlib import Path

from serve_app.errors import PredictorError
from serve_app.predictors.predictor import LoadContext


def artifact_file(context: LoadContext, suffixes: tuple[str, ...], file: str | None = None) -> Path:
    """The artifact itself, or a file inside the artifact's folder.

    Args:
        context: holds the artifact.
        suffixes: what the file's name must end with, such as ``.onnx``.
        file: its path inside the folder; by default the only file with one of the suffixes.

    Raises:
        PredictorError: there is no artifact, no such file, or more than one.
    """
    allowed = ", ".join(suffixes)
    path = context.artifact
    if path is None:
        raise PredictorError(f"this predictor needs an artifact ({allowed})")
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix in suffixes and p.is_file())
        if file is not None:
            folder, path = path.resolve(), path / file
            if not path.resolve().is_relative_to(folder) or not path.is_file():
                raise PredictorError(f"the artifact folder has no file {file!r}")
        elif len(found) != 1:
            names = ", ".join(p.name for p in found) or "none"
            raise PredictorError(f"the artifact folder must hold one of {allowed}; found {names}")
        else:
            path = found[0]
    elif file is not None:
        raise PredictorError(f"file: {file!r} needs an artifact that is a folder")
    if path.suffix not in suffixes:
        raise PredictorError(f"{path.name} is none of {allowed}")
    if not path.is_file():
        raise PredictorError(f"the artifact {path.name} does not exist")
    return path
