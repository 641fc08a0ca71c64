"""Artifacts in object stores, through fsspec."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, TypeVar

import fsspec

from serve_app.artifacts.names import safe_parts
from serve_app.artifacts.policy import FetchPolicy
from serve_app.errors import ArtifactError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FINAL = (
    ArtifactError,
    FileNotFoundError,
    ImportError,
    IsADirectoryError,
    NotADirectoryError,
    NotImplementedError,
    PermissionError,
    TypeError,
    ValueError,
)
"""Errors that another attempt cannot cure."""

_STAMPS = ("ETag", "etag", "md5", "md5Hash", "generation", "LastModified", "mtime", "created")
"""What file systems tell about the state of a file."""


class RemoteFile(NamedTuple):
    """One file of a remote artifact."""

    name: str
    """Relative to the artifact's folder; the base name if the artifact is one file."""
    path: str
    """What the file system calls it."""
    size: int
    stamp: str
    """Changes when the content changes."""


class RemoteArtifact:
    """Lists and reads one artifact."""

    def __init__(self, uri: str, scheme: str, policy: FetchPolicy) -> None:
        self._uri, self._policy = uri, policy
        options: dict[str, Any] = {"skip_instance_cache": True}  # no listing of an earlier call
        if scheme in ("http", "https") and not policy.private_hosts:
            from serve_app.artifacts.http_client import guarded_client  # aiohttp is slow to import

            options["get_client"] = guarded_client
        try:
            self._fs, self._path = fsspec.core.url_to_fs(uri, **options)
        except ImportError as exc:
            raise ArtifactError(f"{uri}: scheme {scheme!r} needs a package: {exc}") from exc
        except (ValueError, TypeError, OSError) as exc:
            raise ArtifactError(f"{uri}: {exc}") from exc
        self.name = safe_parts(self._path.rstrip("/").rpartition("/")[2], uri)[-1]
        self.is_folder = False

    def files(self) -> list[RemoteFile]:
        """Lists the artifact; sets `is_folder`.

        Raises:
            ArtifactError: nothing there, too many or too large, or a name that is not allowed.
        """
        info = self._retry("list", lambda: self._fs.info(self._path))
        self.is_folder = info["type"] == "directory"
        files = list(self._folder()) if self.is_folder else [self._file(self.name, info)]
        if not files:
            raise ArtifactError(f"{self._uri}: the folder is empty")
        if len(files) > self._policy.max_files:
            raise ArtifactError(f"{self._uri}: more than {self._policy.max_files} files")
        if sum(file.size for file in files) > self._policy.max_bytes:
            raise ArtifactError(f"{self._uri}: larger than {self._policy.max_bytes} bytes")
        return files

    def chunks(self, file: RemoteFile) -> Iterator[bytes]:
        """Reads a file in ranges; each is tried again by itself when the network fails."""
        for start in range(0, file.size, self._policy.chunk_bytes):
            end = min(start + self._policy.chunk_bytes, file.size)
            yield self._retry(f"read {file.name}", partial(self._range, file, start, end))

    def _range(self, file: RemoteFile, start: int, end: int) -> bytes:
        data: bytes = self._fs.cat_file(file.path, start=start, end=end)
        if len(data) > end - start:
            raise ArtifactError(f"{self._uri}: the server sent more of {file.name} than asked for")
        if len(data) < end - start:
            have = start + len(data)
            raise EOFError(f"{file.name} is truncated: {have} of {file.size} bytes")
        return data

    def _folder(self) -> Iterator[RemoteFile]:
        root = self._path.rstrip("/") + "/"
        listing = self._retry("list", lambda: self._fs.find(self._path, detail=True))
        for path, info in listing.items():
            if info["type"] == "directory" or path.endswith("/"):  # marks a folder in S3
                continue
            if not path.startswith(root):
                raise ArtifactError(f"{self._uri}: the name {path!r} is not allowed in an artifact")
            yield self._file("/".join(safe_parts(path[len(root) :], self._uri)), info, path)

    def _file(self, name: str, info: dict[str, Any], path: str | None = None) -> RemoteFile:
        size = info.get("size")
        if not isinstance(size, int) or info["type"] != "file":
            raise ArtifactError(f"{self._uri}: {name} is no file with a known size")
        stamp = " ".join(str(info[key]) for key in _STAMPS if key in info)
        return RemoteFile(name, path or self._path, size, stamp)

    def _retry(self, what: str, attempt: Callable[[], T]) -> T:
        """Calls the file system; its errors become ours after the last attempt."""
        policy = self._policy
        for number in range(1, policy.attempts + 1):
            try:
                return attempt()
            except ArtifactError:
                raise
            except FileNotFoundError as exc:
                cause = f" ({exc.__cause__})" if exc.__cause__ else ""
                raise ArtifactError(f"{self._uri}: there is no such file or folder{cause}") from exc
            except Exception as exc:
                reason = f"{type(exc).__name__}: {exc}"
                if isinstance(exc, _FINAL) or number == policy.attempts:
                    raise ArtifactError(f"{self._uri}: could not {what}: {reason}") from exc
                logger.warning(
                    "artifact: could not %s, trying again: %s",
                    what,
                    reason,
                    extra={"action": "fetch"},
                )
            time.sleep(policy.backoff_s * 2 ** (number - 1) * random.uniform(0.75, 1.25))
        raise ArtifactError(f"{self._uri}: attempts must be at least 1")
