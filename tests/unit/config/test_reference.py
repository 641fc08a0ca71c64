from pathlib import Path
from typing import Any

from serve_app.config.keys import allowed_keys
from serve_app.config.load import load_config
from serve_app.config.reference import PAGE, page
from serve_app.config.root import Config


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m serve_app.config.reference"


def keys(tree: dict[str, Any], path: tuple[str, ...] = ()) -> set[str]:
    found = set()
    for key, value in tree.items():
        if isinstance(value, dict) and key not in ("warm_up", "metadata", "network"):
            found |= keys(value, (*path, key))
        else:
            found.add(".".join((*path, key)))
    return found


def test_every_key_of_the_default_config_is_on_the_page() -> None:
    tree = load_config().model_dump(by_alias=True, exclude={"models", "env"})
    for key in keys(tree):
        assert f"| `{key}` |" in page()


def test_every_choice_is_on_the_page() -> None:
    text = page()
    for path in (Path(PAGE).parents[2] / "configs").rglob("*/*.yaml"):
        assert f"`{path.stem}`" in text or f"`env={path.stem}`" in text


def test_allowed_keys_follow_the_schemas() -> None:
    assert allowed_keys(Config, ("ingress", "limits")) == ["max_tensors", "max_rows", "max_dims"]
    assert allowed_keys(Config, ("models", "any", "release", "candidates", 3)) == [
        "version",
        "weight",
    ]
    assert allowed_keys(Config, ("models", "a", "versions", "1", "artifact")) == ["uri", "sha256"]
    assert allowed_keys(Config, ("http", "port", "x")) == []
    assert allowed_keys(Config, ("nowhere",)) == []
