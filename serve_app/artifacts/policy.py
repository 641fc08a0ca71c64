"""What may be fetched, and how hard to try."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

GIB = 1024**3
DEFAULT_SCHEMES = ("file", "package", "s3", "gs", "abfs", "memory")


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """Bounds on artifacts; the defaults suit a cluster whose config is written by its operator."""

    schemes: tuple[str, ...] = DEFAULT_SCHEMES
    """URI schemes that are read; ``file`` includes plain paths. http and https must be named."""
    file_roots: tuple[Path, ...] = ()
    """Folders that local artifacts must lie in; empty means anywhere."""
    private_hosts: bool = False
    """Whether http and https may connect to loopback, private and link-local addresses."""
    max_bytes: int = 50 * GIB
    """Size of one artifact, all its files together."""
    max_files: int = 10_000
    attempts: int = 4
    """How often a read from the network is tried."""
    backoff_s: float = 0.5
    """Wait before the second attempt; it doubles each time."""
    chunk_bytes: int = 16 * 1024 * 1024
    """Read from the network, hashed and written at a time."""
