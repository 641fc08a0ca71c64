"""The rules of the house that a program can check (docs/architecture.md, "Two packages")."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for package in ("serve_app", "deployments", "benchmarks")
    for path in (ROOT / package).rglob("*.py")
    if "generated" not in path.parts
)

LEVELS = {
    "serve_app.errors": 0,
    "serve_app.public_error": 0,
    "serve_app.log": 0,
    "serve_app.context": 0,
    "serve_app.process": 0,
    "serve_app.load_meter": 0,
    "serve_app.domain": 1,
    "serve_app.evidence": 1,
    "serve_app.config": 2,
    "serve_app.channel": 3,
    "serve_app.predictors": 3,
    "serve_app.artifacts": 3,
    "serve_app.examples": 3,
    "serve_app.rollout": 3,
    "serve_app.store": 3,
    "serve_app.listening": 3,
    "serve_app.telemetry": 3,
    "serve_app.waiting": 4,
    "serve_app.waking": 4,
    "serve_app.assembly": 4,
    "serve_app.deadlines": 4,
    "serve_app.pacing": 4,
    "serve_app.batching": 4,
    "serve_app.arms": 4,
    "serve_app.shadow": 4,
    "serve_app.inputs": 4,
    "serve_app.ticket": 4,
    "serve_app.dataplane": 4,
    "serve_app.catalogue": 4,
    "serve_app.http2": 4,
    "serve_app.http": 5,
    "serve_app.grpc": 5,
    "deployments": 6,
}

ONLY_IN = {
    "ray": ("deployments/", "benchmarks/servers/"),
    "hydra": ("serve_app/config/load.py", "serve_app/config/compose.py"),
    "omegaconf": ("serve_app/config/load.py", "serve_app/config/compose.py"),
    "torch": ("serve_app/predictors/", "serve_app/examples/", "deployments/", "benchmarks/"),
    "sqlmodel": ("serve_app/store/",),
    "sqlalchemy": ("serve_app/store/",),
    "fastapi": ("serve_app/http/", "benchmarks/servers/"),
    "uvicorn": ("serve_app/http/", "benchmarks/servers/"),
    "grpc": ("benchmarks/",),
    "hpack": ("serve_app/http2/",),
    "typer": ("deployments/cli", "benchmarks/"),
    "subprocess": ("deployments/node.py", "benchmarks/", "serve_app/grpc/generate.py"),
}
"""Library -> the only places that import it."""


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def level(module: str) -> int | None:
    matches = [name for name in LEVELS if module == name or module.startswith(f"{name}.")]
    return LEVELS[max(matches, key=len)] if matches else None


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_go_downward(path: Path) -> None:
    module = name_of(path)
    own = level(module)
    if own is None:
        return
    group = next(name for name in LEVELS if module == name or module.startswith(f"{name}."))
    for imported in imports(path):
        other = level(imported)
        if other is None or imported == group or imported.startswith(f"{group}."):
            continue
        siblings = own == other and (own in (3, 4) or other == 0)
        assert other < own or siblings, f"{module} (level {own}) imports {imported} ({other})"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_libraries_are_imported_in_their_place_only(path: Path) -> None:
    for imported in imports(path):
        allowed = ONLY_IN.get(imported.split(".")[0])
        if allowed is not None:
            assert relative(path).startswith(allowed), f"{relative(path)} imports {imported}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_product_code_does_not_import_its_fakes_or_assert(path: Path) -> None:
    if relative(path) != "serve_app/testing.py":
        assert "serve_app.testing" not in set(imports(path))
    if path.is_relative_to(ROOT / "serve_app") or path.is_relative_to(ROOT / "deployments"):
        asserts = [node.lineno for node in ast.walk(tree(path)) if isinstance(node, ast.Assert)]
        assert not asserts, f"assert at {asserts}: checks must also hold under python -O"


def test_composition_happens_in_one_place() -> None:
    users = {
        relative(path)
        for path in SOURCES
        if path.is_relative_to(ROOT / "deployments")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr == "bind"
    }
    assert users == {"deployments/app.py"}


def test_builders_take_a_class_that_serve_can_validate() -> None:
    # Serve skips validation silently when the annotation is a string.
    source = tree(ROOT / "deployments" / "app.py")
    assert not any(
        isinstance(node, ast.ImportFrom) and node.module == "__future__"
        for node in ast.walk(source)
    )


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_modules_are_nouns(path: Path) -> None:
    assert path.stem not in {"utils", "util", "common", "misc", "core", "helpers"}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_modules_and_functions_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 360, "two concepts in one file?"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is long"


def test_importing_the_data_path_loads_neither_ray_nor_torch() -> None:
    code = (
        "import sys, serve_app.dataplane, serve_app.http.app, serve_app.grpc.listener, "
        "serve_app.config.root, serve_app.predictors.host\n"
        "print(sorted({'ray', 'torch', 'hydra', 'sklearn', 'onnxruntime'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
