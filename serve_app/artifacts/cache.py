"""The content-addressed cache on the local disk, shared by all processes of a node.

Layout below its root::

    sha256/<aa>/<digest>/<name>    a finished artifact, file or folder
    index/<key>                    the digest of an artifact whose config names none
    staging/<key>/                 a download in work; whoever holds the lock owns it
    locks/<key>.lock               held (flock) while one process downloads
    locks/<digest>.publish.lock    held while one process moves a download into its place

Nothing is ever evicted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from serve_app.artifacts.digest import local_digest
from serve_app.artifacts.policy import FetchPolicy
from serve_app.errors import ArtifactError


class ArtifactCache:
    """Finds, locks, stages and publishes artifacts."""

    def __init__(self, root: Path, policy: FetchPolicy) -> None:
        self._root, self._policy = root, policy

    def verified(self, digest: str, name: str) -> Path | None:
        """The cached artifact, if it is there and its content still has the digest."""
        path = self._entry(digest) / name
        if not path.exists() or path.is_symlink():
            return None
        try:
            return path if local_digest(path, self._policy) == digest else None
        except ArtifactError:  # damaged, or removed by a process that found it damaged
            return None

    def recall(self, key: str) -> str | None:
        """The digest remembered under a key."""
        try:
            return (self._root / "index" / key).read_text().strip()
        except FileNotFoundError:
            return None

    def remember(self, key: str, digest: str) -> None:
        """Keeps a digest under a key."""
        path = self._root / "index" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{key}.{os.getpid()}")
        new.write_text(digest)
        new.replace(path)

    @contextlib.contextmanager
    def staging(self, key: str) -> Iterator[Path]:
        """An empty folder to download into; only one process at a time gets that of a key.

        The lock ends with the process that holds it, so what an interrupted download left is
        found and removed by the next one.
        """
        with self._locked(key):
            folder = self._root / "staging" / key
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def publish(self, staged: Path, digest: str) -> Path:
        """Moves a finished download from the staging folder into its place.

        Configs with and without a sha256 stage the same content under different keys, so another
        process may have published it meanwhile, and a replica may be reading it: what is whole
        stays where it is.
        """
        target = self._entry(digest) / staged.name
        target.parent.mkdir(parents=True, exist_ok=True)
        for folder, _, names in os.walk(staged):
            for name in names:
                _sync(Path(folder, name))
            _sync(Path(folder))
        if staged.is_file():
            _sync(staged)
        with self._locked(f"{digest}.publish"):
            if self.verified(digest, staged.name) is not None:
                return target
            if target.exists():
                target.rename(staged.parent / f"damaged-{staged.name}")
            staged.rename(target)
            _sync(target.parent)
        return target

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Waits until no other process (nor another call) holds the lock of this name."""
        locks = self._root / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        with (locks / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _entry(self, digest: str) -> Path:
        return self._root / "sha256" / digest[:2] / digest


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
