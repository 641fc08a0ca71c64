from collections.abc import Callable
from pathlib import Path

import pytest

from serve_app.config.catalogue import STOCK
from serve_app.config.load import load_config
from serve_app.errors import ConfigError

MINIMAL_MODEL = """\
# @package models
{name}:
  inputs: [{{name: x, datatype: FP32, shape: [-1, 4]}}]
  outputs: [{{name: y, datatype: FP32, shape: [-1, 3]}}]
  versions:
    "1":
      platform: test
      predictor: {{_target_: serve_app.predictors.echo.Echo}}
  release:
    candidates: [{{version: "1", weight: 100}}]
"""


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """File names in messages are relative to the checkout; nothing comes from the environment."""
    monkeypatch.chdir(STOCK.parent)
    for name in (
        "SERVE_APP_CONFIG_DIR",
        "SERVE_APP_DATABASE_URL",
        "SERVE_APP_DATABASE_PASSWORD",
        "SERVE_APP_CLUSTER_ADDRESS",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SERVE_APP_HOME", str(tmp_path / "home"))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's own folder of config files."""
    folder = tmp_path / "my_configs"
    (folder / "model").mkdir(parents=True)
    return folder


Explain = Callable[..., str]


@pytest.fixture
def explain() -> Explain:
    """The text of the error that overrides lead to."""

    def text(*overrides: str, config_dir: Path | None = None) -> str:
        with pytest.raises(ConfigError) as caught:
            load_config(overrides, config_dir)
        return str(caught.value)

    return text
