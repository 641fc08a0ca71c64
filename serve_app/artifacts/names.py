"""Names that come from outside: URIs, and file names in remote listings."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from serve_app.artifacts.policy import FetchPolicy
from serve_app.errors import ArtifactError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
LOCAL_SCHEMES = ("file", "package")


def scheme_of(uri: str, policy: FetchPolicy) -> str:
    """The scheme of a URI, ``file`` for a plain path; refuses what the policy does not allow."""
    if _has_control(uri):
        raise ArtifactError(f"{uri!r}: control characters are not allowed")
    match = _SCHEME.match(uri)
    scheme = match.group(1).lower() if match else "file"
    if match and "::" in uri:
        raise ArtifactError(f"{uri}: chained URIs are not allowed")
    if scheme not in policy.schemes:
        allowed = ", ".join(policy.schemes)
        raise ArtifactError(f"{uri}: scheme {scheme!r} is not allowed. Allowed: {allowed}.")
    if scheme not in LOCAL_SCHEMES and urlsplit(uri).password is not None:
        host = urlsplit(uri).hostname
        raise ArtifactError(
            f"{scheme}://...@{host}: a URI must not hold a password; credentials come from the "
            "environment"
        )
    return scheme


def local_path(uri: str, scheme: str, policy: FetchPolicy) -> Path:
    """Where a ``file`` or ``package`` artifact lies on this machine."""
    if scheme == "package":
        return _package_path(uri)
    path = Path(uri)
    if uri.lower().startswith("file://"):
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost"):
            raise ArtifactError(f"{uri}: a file URI has no host; write file:///PATH")
        path = Path(unquote(parts.path))
        if _has_control(str(path)):
            raise ArtifactError(f"{uri!r}: control characters are not allowed")
    if policy.file_roots:
        resolved = path.resolve()
        if not any(resolved.is_relative_to(root.resolve()) for root in policy.file_roots):
            roots = ", ".join(map(str, policy.file_roots))
            raise ArtifactError(f"{uri}: local artifacts must lie in {roots}")
    return path


def _package_path(uri: str) -> Path:
    """A path inside an installed package, found without importing it."""
    name, _, inside = uri.partition("://")[2].partition("/")
    if not name.isidentifier():
        raise ArtifactError(f"{uri}: write package://NAME/PATH, with NAME a top-level package")
    parts = safe_parts(inside, uri)
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ArtifactError(f"{uri}: package {name!r} is not installed")
    for location in spec.submodule_search_locations:
        path = Path(location, *parts)
        if path.exists():
            if not path.resolve().is_relative_to(Path(location).resolve()):
                raise ArtifactError(f"{uri}: leads out of the package")
            return path
    raise ArtifactError(f"{uri}: package {name!r} holds no {inside!r}")


def safe_parts(name: str, uri: str) -> tuple[str, ...]:
    """Splits a relative name into its parts; refuses names that could lead elsewhere."""
    parts = tuple(name.split("/"))
    # A line break could forge a line of the manifest, so no control characters either.
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or _has_control(name):
        raise ArtifactError(f"{uri}: the name {name!r} is not allowed in an artifact")
    return parts


def _has_control(text: str) -> bool:
    return any(ord(character) < 32 for character in text)
