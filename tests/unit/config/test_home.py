import os
from pathlib import Path

import pytest

from serve_app.config.home import home_dir, home_in_environment


@pytest.mark.parametrize("value", [None, ""])
def test_default(value: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SERVE_APP_HOME")
    if value is not None:
        monkeypatch.setenv("SERVE_APP_HOME", value)
    assert home_dir() == tmp_path / "var"
    assert not home_dir().exists()


def test_relative_and_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SERVE_APP_HOME", "a/../b")
    assert home_dir() == tmp_path / "b"
    monkeypatch.setenv("SERVE_APP_HOME", "~/c")
    assert home_dir() == tmp_path / "c"


@pytest.mark.parametrize("value", [None, "relative"])
def test_environment_is_put_back(
    value: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SERVE_APP_HOME")
    if value is not None:
        monkeypatch.setenv("SERVE_APP_HOME", value)

    def fail_inside() -> None:
        with home_in_environment():
            assert Path(os.environ["SERVE_APP_HOME"]).is_absolute()
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert os.environ.get("SERVE_APP_HOME") == value
