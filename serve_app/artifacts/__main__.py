"""``python -m serve_app.artifacts hash PATH_OR_URI``: the sha256 for an artifact's config."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from serve_app.artifacts.fetch import hash_artifact
from serve_app.errors import ArtifactError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 1 if the artifact cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m serve_app.artifacts", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("hash", help="print the sha256 of an artifact")
    command.add_argument("uri", metavar="PATH_OR_URI")
    parsed = parser.parse_args(arguments)
    try:
        print(hash_artifact(parsed.uri))
    except ArtifactError as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
