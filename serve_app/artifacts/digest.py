"""sha256 of files and folders.

The digest of a folder is that of its manifest: one line ``<sha256>  <size>  <path>`` per file,
ended by a newline, sorted by the bytes of the relative path.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from serve_app.artifacts.names import safe_parts
from serve_app.artifacts.policy import FetchPolicy
from serve_app.errors import ArtifactError

_SPARSE_FROM_BYTES = 1024 * 1024


class FileDigest(NamedTuple):
    """One line of a manifest."""

    path: str
    size: int
    sha256: str


def manifest_digest(files: Iterable[FileDigest]) -> str:
    """The digest of a folder with these files."""
    lines = (
        f"{file.sha256}  {file.size}  {file.path}\n".encode(errors="surrogateescape")
        for file in sorted(files, key=lambda file: os.fsencode(file.path))
    )
    return hashlib.sha256(b"".join(lines)).hexdigest()


def local_digest(path: Path, policy: FetchPolicy) -> str:
    """The digest of a file or folder on this machine, after `checked_files`."""
    files = checked_files(path, policy)
    if not path.is_dir():
        return _file_digest(path)
    return manifest_digest(
        FileDigest(name, file.stat().st_size, _file_digest(file)) for name, file in files
    )


def checked_files(path: Path, policy: FetchPolicy) -> list[tuple[str, Path]]:
    """All files of a local artifact with their relative names; refuses what is not a plain file.

    Raises:
        ArtifactError: missing, empty, too large, sparse, or a link that leaves the folder.
    """
    if not path.exists():
        raise ArtifactError(f"{path}: there is no such file or folder")
    files = list(_walk(path, path.resolve())) if path.is_dir() else [(path.name, path)]
    if not files:
        raise ArtifactError(f"{path}: the folder is empty")
    if len(files) > policy.max_files:
        raise ArtifactError(f"{path}: more than {policy.max_files} files")
    total = 0
    for _, file in files:
        total += _plain_size(file)
        if total > policy.max_bytes:
            raise ArtifactError(f"{path}: larger than {policy.max_bytes} bytes")
    return files


def _walk(folder: Path, root: Path) -> Iterator[tuple[str, Path]]:
    for current, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(current, name)
            if not path.is_symlink():
                continue
            if not path.resolve().is_relative_to(root):
                raise ArtifactError(f"{path}: a symbolic link that leaves the folder")
            if path.is_dir():
                raise ArtifactError(f"{path}: a symbolic link to a folder")
        for name in names:
            path = Path(current, name)
            relative = path.relative_to(folder).as_posix()
            safe_parts(relative, str(folder))
            yield relative, path


def _plain_size(path: Path) -> int:
    """Size of a regular file that holds data throughout."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ArtifactError(f"{path}: not a regular file")
        if status.st_size >= _SPARSE_FROM_BYTES and _data_bytes(path) * 2 < status.st_size:
            raise ArtifactError(f"{path}: a sparse file")
    except OSError as exc:
        raise ArtifactError(f"{path}: {exc.strerror}") from exc
    return status.st_size


def _data_bytes(path: Path) -> int:
    """How much of a file is no hole; not st_blocks, which some network file systems leave 0."""
    total = end = 0
    with path.open("rb") as file:
        while True:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:  # nothing but a hole up to the end
                return total
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            total += end - start


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise ArtifactError(f"{path}: {exc.strerror}") from exc
