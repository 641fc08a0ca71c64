from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from serve_app.channel.socket_path import new_socket_path, remove_stale_sockets, socket_folder
from serve_app.errors import ClusterError
from serve_app.process import own_name


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the folder will be."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"serve-app-{os.geteuid()}"


def test_the_folder_is_made_for_this_user_alone(place: Path) -> None:
    before = os.umask(0)
    try:
        assert socket_folder() == place
    finally:
        os.umask(before)
    assert place.stat().st_mode & 0o777 == 0o700
    assert socket_folder() == place


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o777])
def test_a_folder_that_others_may_enter_is_refused(place: Path, mode: int) -> None:
    place.mkdir()
    place.chmod(mode)
    with pytest.raises(ClusterError, match="0700"):
        socket_folder()


def test_a_folder_of_somebody_else_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = place.with_name(f"serve-app-{os.geteuid() + 1}")
    theirs.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ClusterError, match="belongs to this user"):
        socket_folder()


def test_a_link_is_refused_wherever_it_leads(place: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    place.symlink_to(target)
    with pytest.raises(ClusterError, match="0700"):
        socket_folder()
    place.unlink()
    place.symlink_to(tmp_path / "nothing")
    with pytest.raises(ClusterError):
        socket_folder()


def test_a_file_in_its_place_is_refused(place: Path) -> None:
    place.touch()
    with pytest.raises(ClusterError, match="cannot be made"):
        socket_folder()


def test_paths_are_never_the_same_and_say_whose_they_are(tmp_path: Path) -> None:
    folder = Path("/tmp/f")
    paths = {new_socket_path(folder) for _ in range(100)}
    assert len(paths) == 100
    for path in paths:
        owner, _, secret = path.stem.rpartition("-")
        assert owner == own_name()
        assert len(secret) == 32


def test_a_path_that_no_socket_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="TMPDIR"):
        new_socket_path(tmp_path / ("x" * 100))
    short = len(os.fsencode(new_socket_path(Path("/")))) - 1
    longest = Path("/" + "x" * (107 - short - 2))
    assert len(os.fsencode(new_socket_path(longest))) == 107
    with pytest.raises(ClusterError):
        new_socket_path(Path(str(longest) + "x"))
    with pytest.raises(ClusterError):  # bytes count, and not characters
        new_socket_path(longest.with_name("ü" + longest.name[1:]))


def test_sockets_of_the_dead_are_removed_and_no_others(tmp_path: Path) -> None:
    code = "from serve_app.process import own_name; print(own_name())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    dead = tmp_path / f"{run.stdout.strip()}-{'0' * 32}.sock"
    reused = tmp_path / f"{os.getpid()}-1-{'0' * 32}.sock"
    nameless = tmp_path / "x.sock"
    mine, other = new_socket_path(tmp_path.parent.parent), tmp_path / "notes.txt"
    mine = tmp_path / mine.name
    for path in (dead, reused, nameless, mine, other):
        path.touch()
    remove_stale_sockets(tmp_path)
    assert set(tmp_path.iterdir()) == {mine, other}
