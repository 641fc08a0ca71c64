"""From an artifact's URI to a verified path on this machine."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import BinaryIO

from serve_app.artifacts.cache import ArtifactCache
from serve_app.artifacts.digest import FileDigest, checked_files, local_digest, manifest_digest
from serve_app.artifacts.names import LOCAL_SCHEMES, local_path, scheme_of
from serve_app.artifacts.policy import FetchPolicy
from serve_app.artifacts.remote import RemoteArtifact, RemoteFile
from serve_app.config.model import ArtifactConfig
from serve_app.errors import ArtifactError

logger = logging.getLogger(__name__)

DEFAULT_POLICY = FetchPolicy()


def fetch_artifact(
    artifact: ArtifactConfig, cache_dir: Path, policy: FetchPolicy = DEFAULT_POLICY
) -> Path:
    """Makes an artifact available as a file or folder on this machine.

    Local files and those of installed packages are verified in place. Others are downloaded once
    into the cache, however many processes ask, and verified again whenever they are taken from it.
    It blocks: call it outside of an event loop.

    Args:
        artifact: URI and, if declared, sha256.
        cache_dir: the node's cache; made when missing.
        policy: what may be fetched.

    Raises:
        ArtifactError: missing, not allowed, unreadable, or not the content that was declared.
    """
    scheme = scheme_of(artifact.uri, policy)
    try:
        if scheme in LOCAL_SCHEMES:
            return _in_place(artifact, scheme, policy)
        remote = RemoteArtifact(artifact.uri, scheme, policy)
        return _from_cache(artifact, remote, ArtifactCache(cache_dir, policy))
    except OSError as exc:
        raise ArtifactError(f"{artifact.uri}: {exc}") from exc


def hash_artifact(uri: str, policy: FetchPolicy = DEFAULT_POLICY) -> str:
    """The sha256 of an artifact, as the config declares it."""
    scheme = scheme_of(uri, policy)
    if scheme in LOCAL_SCHEMES:
        return local_digest(local_path(uri, scheme, policy), policy)
    remote = RemoteArtifact(uri, scheme, policy)
    return _read(remote, remote.files(), None)


def _in_place(artifact: ArtifactConfig, scheme: str, policy: FetchPolicy) -> Path:
    """Verifies an artifact that is on this machine already."""
    path = local_path(artifact.uri, scheme, policy)
    if artifact.sha256 is None:
        checked_files(path, policy)
    else:
        _compare(artifact.uri, artifact.sha256, local_digest(path, policy))
    return path


def _from_cache(artifact: ArtifactConfig, remote: RemoteArtifact, cache: ArtifactCache) -> Path:
    """Takes an artifact from the cache; downloads it first if it is not there."""
    files: list[RemoteFile] | None = None
    if artifact.sha256 is None:
        files = remote.files()  # the store must say whether what is remembered is still current
        key = _fingerprint(artifact.uri, files)
    else:
        key = artifact.sha256

    def cached() -> Path | None:
        digest = artifact.sha256 or cache.recall(key)
        return cache.verified(digest, remote.name) if digest else None

    if path := cached():
        return path
    with cache.staging(key) as folder:
        if path := cached():  # another process was faster
            return path
        logger.info("fetching %s", artifact.uri, extra={"action": "fetch"})
        digest = _read(remote, remote.files() if files is None else files, folder)
        if artifact.sha256 is not None:
            _compare(artifact.uri, artifact.sha256, digest)
        elif remote.files() != files:
            raise ArtifactError(f"{artifact.uri}: it was changed while it was being read")
        path = cache.publish(folder / remote.name, digest)
        if artifact.sha256 is None:
            cache.remember(key, digest)
        return path


def _read(remote: RemoteArtifact, files: list[RemoteFile], folder: Path | None) -> str:
    """Hashes all files while they stream, and writes them below `folder` if there is one."""
    digests = []
    for file in files:
        sha256 = hashlib.sha256()
        with _target(remote, file, folder) as out:
            for chunk in remote.chunks(file):
                sha256.update(chunk)
                out.write(chunk)
        digests.append(FileDigest(file.name, file.size, sha256.hexdigest()))
    return manifest_digest(digests) if remote.is_folder else digests[0].sha256


def _target(remote: RemoteArtifact, file: RemoteFile, folder: Path | None) -> BinaryIO:
    if folder is None:
        return open(os.devnull, "wb")
    path = folder / remote.name / file.name if remote.is_folder else folder / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("xb")


def _fingerprint(uri: str, files: list[RemoteFile]) -> str:
    """Names the state of a remote artifact whose digest was not declared."""
    state = "\n".join([uri, *(f"{file.name}\0{file.size}\0{file.stamp}" for file in files)])
    return hashlib.sha256(state.encode(errors="surrogateescape")).hexdigest()


def _compare(uri: str, declared: str, found: str) -> None:
    if declared != found:
        raise ArtifactError(f"{uri}: its sha256 is {found}, declared is {declared}")
