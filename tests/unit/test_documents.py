"""What the documents point at exists: files of the repository, links, headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("serve_app", "deployments", "configs", "benchmarks", "tests", "docs", "k8s")
REPORTS = ROOT / "docs" / "reports"  # written by benchmarks
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(p for p in (ROOT / "docs").rglob("*.md") if not p.is_relative_to(REPORTS)),
]
LINKED = [*DOCUMENTS, ROOT / "benchmarks" / "README.md"]

PATH = r"[\w.-]+(?:/[\w.-]+)*\.(?:py|md|yaml|proto)"
IN_BACKTICKS = re.compile(rf"`({PATH})`")
ANYWHERE = re.compile(rf"(?<![\w./-])((?:{'|'.join(FOLDERS)})/{PATH})")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
READERS_OWN = re.compile(r"(^|/)(my_|my\.|try_it)|NAME")
"""Files that a reader is to write."""


@cache
def files() -> frozenset[str]:
    found = {path.name for path in ROOT.iterdir() if path.is_file()}
    for folder in FOLDERS:
        found |= {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.*")}
    return frozenset(found)


def exists(path: str) -> bool:
    """Whether it is a file of ours, or the end of its path."""
    return path in files() or any(file.endswith(f"/{path}") for file in files())


def mentioned(text: str) -> set[str]:
    found = {*IN_BACKTICKS.findall(text), *ANYWHERE.findall(text)}
    return {path for path in found if not READERS_OWN.search(path)}


def links(document: Path) -> Iterator[tuple[str, str]]:
    """File and heading that the relative links of a document name."""
    for target in LINK.findall(FENCED.sub("", document.read_text())):
        if "://" not in target and not target.startswith("mailto:"):
            path, _, heading = target.partition("#")
            yield path, heading


def anchors(document: Path) -> set[str]:
    """Its headings as GitHub writes them into links."""
    headings = HEADING.findall(FENCED.sub("", document.read_text()))
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_file_that_is_mentioned_exists(document: Path) -> None:
    missing = {path for path in mentioned(document.read_text()) if not exists(path)}
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_no_gap_is_left_to_be_filled(document: Path) -> None:
    assert not re.search(r"@@|TODO|FIXME|\bTBD\b", document.read_text())


@pytest.mark.parametrize("document", LINKED, ids=name)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    for path, heading in links(document):
        target = document.parent / path if path else document
        assert target.exists(), path
        if heading:
            assert heading in anchors(target), f"{path}#{heading}"


def test_the_documents_mention_files_and_have_links() -> None:
    """The patterns above find something."""
    architecture = ROOT / "docs" / "architecture.md"
    assert {"serve_app/dataplane.py", "tensor_codec.py"} <= mentioned(architecture.read_text())
    assert ("reference/metrics.md", "") in set(links(architecture))
    assert "a-deploy" in anchors(architecture)
    assert exists("http/v2/infer.py")
    assert not exists("http/protocol.py")
