"""What a test needs beyond the product: packages that carry real models, programs."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest


def require_package(name: str) -> Path:
    """The folder of an installed package, found without importing it.

    Skips the test where the package is missing; with SERVE_APP_REQUIRE_ALL=1, as in CI, fails it.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        missing(f"package {name} is not installed (requirements-models.txt)")
    return Path(spec.submodule_search_locations[0])


def require_program(name: str, package: str) -> str:
    """The path of a program that Debian's `package` brings; skips or fails the test without it."""
    path = shutil.which(name)
    if path is None:
        missing(f"{name} is not installed (Debian: apt-get install {package})")
    return path


def missing(reason: str) -> NoReturn:
    """Skips the test for want of something, or fails it where everything must be there."""
    if os.environ.get("SERVE_APP_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
