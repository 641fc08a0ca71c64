"""The documents' commands, run as they stand there (only ports and folders are put in)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.cluster import ROOT, Cluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(280)]

BLOCK = re.compile(r"(?:<!-- file: (?P<file>\S+) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.S)


def blocks(path: str) -> list[tuple[str | None, str, str]]:
    """File name, language and text of each fenced block."""
    return [
        (match["file"], match["kind"], match["text"])
        for match in BLOCK.finditer((ROOT / path).read_text())
    ]


def shell(text: str, cluster: Cluster, folder: Path) -> str:
    text = text.replace("localhost:8000", cluster.http).replace(
        "serve-app up", f"serve-app up {' '.join(cluster.settings())}"
    )
    environment = {
        **cluster.environment,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PWD": str(folder),
    }
    done = subprocess.run(
        ["bash", "-euc", text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_add_a_model(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "home")
    outputs = []
    try:
        for file, kind, text in blocks("docs/howto/add-a-model.md"):
            if file is not None:
                (tmp_path / file).write_text(text)
            elif kind == "bash":
                outputs.append(shell(text, cluster, tmp_path))
    finally:
        cluster.run("down")
    answer = json.loads(outputs[-1])
    (probabilities,) = answer["outputs"]
    assert answer["model_name"] == "iris"
    assert probabilities["shape"] == [1, 3]
    assert max(probabilities["data"]) == probabilities["data"][2]


def test_the_mistake_in_add_a_model_is_described_as_it_reads(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "home")
    found = blocks("docs/howto/add-a-model.md")
    text = next(text for file, _, text in found if file == "my_configs/model/iris.yaml")
    expected = next(text for _, kind, text in found if kind == "text")
    (tmp_path / "my_configs" / "model").mkdir(parents=True)
    (tmp_path / "my_configs" / "model" / "iris.yaml").write_text(
        text.replace('{version: "1", weight', '{version: "2", weight')
    )
    command = Path(sys.executable).parent / "serve-app"
    done = subprocess.run(
        [command, "config", "--config-dir", "my_configs", "model=[iris]"],
        cwd=tmp_path,
        env={**cluster.environment, "PWD": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.strip() == expected.strip()


@pytest.mark.parametrize("kind", ["bash", "python"])
def test_the_first_requests_of_the_readme(cluster: Cluster, tmp_path: Path, kind: str) -> None:
    found = [text for file, language, text in blocks("README.md") if language == kind]
    assert found
    for text in found:
        if kind == "bash":
            assert '"outputs"' in shell(text, cluster, tmp_path)
        else:
            code = text.replace("localhost:8000", cluster.http)
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, done.stderr
            assert done.stdout.strip()
