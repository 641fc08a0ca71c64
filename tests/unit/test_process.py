from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from serve_app.process import own_name, owner, start_time


def test_this_process_owns_what_bears_its_name() -> None:
    assert own_name() == f"{os.getpid()}-{start_time(os.getpid())}"
    assert owner(own_name()) == os.getpid()


def test_the_dead_own_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = f"{child.pid}-{start_time(child.pid)}"
    assert owner(name) == child.pid
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert owner(name) is None  # a zombie
    child.communicate()
    assert owner(name) is None


def test_a_process_id_that_is_used_again_is_another_owner() -> None:
    assert owner(f"{os.getpid()}-1") is None


@pytest.mark.parametrize("name", ["", "x", "12", "-", "12-", "-12", "a-b", "../1-1"])
def test_names_that_are_none(name: str) -> None:
    assert owner(name) is None


def test_a_program_name_with_parentheses_and_spaces(tmp_path: Path) -> None:
    program = tmp_path / "a) Z (b"
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([program, "30"])
    try:
        assert (start_time(child.pid) or "").isdigit()
    finally:
        child.kill()
        child.wait()
