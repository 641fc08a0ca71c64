"""The documents' commands, pasted into a new shell as they stand there.

Only ports, folders and the place of the virtual environment are put in.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cluster import ROOT, Cluster
from tests.requirements import require_program

pytestmark = [pytest.mark.ray, pytest.mark.timeout(280)]

BLOCK = re.compile(r"(?:<!-- file: (?P<file>\S+) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.S)
ACTIVATE = ". .venv/bin/activate"


def blocks(path: str) -> list[tuple[str | None, str, str]]:
    """File name, language and text of each fenced block."""
    return [
        (match["file"], match["kind"], match["text"])
        for match in BLOCK.finditer((ROOT / path).read_text())
    ]


def script(path: str) -> str:
    """What a reader types, from top to bottom: files, commands, Python."""
    parts = []
    for file, kind, text in blocks(path):
        if file is not None:
            parts.append(f"cat > {file} <<'END OF FILE'\n{text}END OF FILE\n")
        elif kind == "bash":
            parts.append(f"{text}echo\n")
        elif kind == "python":
            parts.append(f"python - <<'END OF FILE'\n{text}END OF FILE\n")
    return "".join(parts)


def paste(text: str, cluster: Cluster, folder: Path) -> list[str]:
    """What a shell prints, line by line; only the documented activation provides our commands."""
    require_program("curl", "curl")
    assert ACTIVATE in text
    text = text.replace(ACTIVATE, f". {sys.prefix}/bin/activate")
    text = text.replace("localhost:8000", cluster.http)
    text = text.replace("localhost:8002/metrics", cluster.metrics)
    settings = " ".join(cluster.settings())
    text = re.sub(r"serve-app (up|plan|apply|history|rollback)\b", rf"\g<0> {settings}", text)
    folders = os.environ["PATH"].split(os.pathsep)
    path = os.pathsep.join(each for each in folders if not Path(each, "serve-app").exists())
    environment = {**cluster.environment, "PATH": path, "PWD": str(folder)}
    environment.pop("VIRTUAL_ENV", None)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return [line for line in done.stdout.splitlines() if line]


def test_add_a_model(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "home")
    try:
        lines = paste(script("docs/howto/add-a-model.md"), cluster, tmp_path)
    finally:
        cluster.run("down")
    answer = json.loads(lines[-1])
    (probabilities,) = answer["outputs"]
    assert answer["model_name"] == "iris"
    assert probabilities["shape"] == [1, 3]
    assert max(probabilities["data"]) == probabilities["data"][2]


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The default models. Each document starts it if need be, and leaves it as it was."""
    made = Cluster(tmp_path_factory.mktemp("home"))
    yield made
    made.run("down")


def test_roll_back(default: Cluster, tmp_path: Path) -> None:
    lines = paste(script("docs/howto/rollback.md"), default, tmp_path)
    (listed,) = [line for line in lines if line.rstrip().endswith("digits 2 changed")]
    assert f"Revision {int(listed.split()[0]) - 1} serves again." in lines
    assert "No changes: the cluster runs this configuration." in lines
    shares = [line for line in lines if line.startswith("  traffic ")]
    assert [each.split(maxsplit=1)[1].strip() for each in shares] == [
        "2: 90%, 3: 10%",
        "2: 100%",
        "2: 100%",
    ]


def test_run_a_canary(default: Cluster, tmp_path: Path) -> None:
    lines = paste(script("docs/howto/run-a-canary.md"), default, tmp_path)
    (counts,) = [line for line in lines if line.startswith("version 2: ")]
    assert "version 3: " in counts
    assert "failed" not in counts
    shown = [line for line in lines if line.startswith("digits: rollout ")]
    assert any(", promoted: step 100 % has held" in line for line in shown), shown


def test_ab_test(default: Cluster, tmp_path: Path) -> None:
    lines = paste(script("docs/howto/ab-test.md"), default, tmp_path)
    assert any("ersion 3 is better" in line for line in lines), lines
    assert (tmp_path / "digits.svg").read_text().startswith("<svg")
    assert "  traffic   3: 100%" in [line.split(", 1")[0] for line in lines]


def test_shadow(default: Cluster, tmp_path: Path) -> None:
    lines = paste(script("docs/howto/shadow.md"), default, tmp_path)
    assert [line for line in lines if line.endswith(" answered")] == ["1000 of 1000 answered"] * 2
    assert any("version 2 and shadow 3" in line for line in lines)
    counted = {
        result: sum(float(line.split()[-1]) for line in lines if f'result="{result}"' in line)
        for result in ("agreed", "disagreed")
    }
    assert 0.05 < counted["disagreed"] / sum(counted.values()) < 0.25
    (shown,) = [line for line in lines if ", rolled back: disagreement of version 3" in line]
    assert "mirrored answers differed" in shown


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


def test_autoscale(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "home")
    try:
        lines = paste(script("docs/howto/autoscale.md"), cluster, tmp_path)
    finally:
        cluster.run("down")
    (count,) = [line.split() for line in lines if line.endswith(" answered")]
    assert count[0] == count[2]
    shown = [line.split() for line in lines if line.startswith("slow ")]
    assert shown[0][3:6] == ["2", "/", "0-2"]
    assert [each[-2:] for each in shown[1:]] == [["idle", "(0)"]] * 2
    first, hasty = (json.loads(line) for line in lines if line.startswith("{"))
    assert first["outputs"][0]["data"] == [7.0]
    assert (hasty["status"], hasty["code"]) == (504, "deadline_exceeded")


def test_the_first_requests_of_the_readme(cluster: Cluster, tmp_path: Path) -> None:
    curl, digit, embedding = paste(script("README.md"), cluster, tmp_path)
    (outputs, *_) = json.loads(curl)["outputs"]
    assert outputs["shape"] == [1, 384]
    assert digit == "0"
    assert len(json.loads(embedding)) == 4
