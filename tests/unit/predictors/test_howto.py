"""docs/howto/write-a-predictor.md, tried as it is written."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

DOCUMENT = Path(__file__).parents[3] / "docs" / "howto" / "write-a-predictor.md"


def test_the_example_does_what_the_document_says(tmp_path: Path) -> None:
    text = DOCUMENT.read_text()
    blocks = re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", text, re.DOTALL)
    assert [name for name, _ in blocks] == ["my_predictors.py", "try_it.py"]
    for name, source in blocks:
        (tmp_path / name).write_text(source)
    command = [sys.executable, "try_it.py"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    shown = re.findall(r"```text\n(.*?)```", text, re.DOTALL)[-1]
    assert run.stdout == shown


def test_every_predictor_of_the_table_exists() -> None:
    targets = re.findall(r"^\| `(\w+)\.(\w+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    assert len(targets) == 6
    for module, name in targets:
        assert hasattr(importlib.import_module(f"serve_app.predictors.{module}"), name)
