"""Model artifacts: from a URI, verified, to a path on this machine."""

from serve_app.artifacts.fetch import fetch_artifact, hash_artifact
from serve_app.artifacts.policy import FetchPolicy

__all__ = ["FetchPolicy", "fetch_artifact", "hash_artifact"]
