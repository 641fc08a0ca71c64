"""A user's own folder of config files."""

from pathlib import Path

import pytest

from serve_app.config.load import load_config
from tests.unit.config.conftest import MINIMAL_MODEL, Explain


def write(own: Path, name: str, text: str) -> None:
    path = own / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_an_own_model_beside_a_stock_one(own: Path) -> None:
    write(own, "model/iris.yaml", MINIMAL_MODEL.format(name="iris"))
    assert list(load_config(["model=[iris,minilm]"], own).models) == ["iris", "minilm"]
    assert list(load_config(["+model=iris"], own).models) == ["digits", "minilm", "iris"]


def test_the_folder_may_come_from_the_environment(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(own, "model/iris.yaml", MINIMAL_MODEL.format(name="iris"))
    monkeypatch.setenv("SERVE_APP_CONFIG_DIR", str(own))
    assert list(load_config(["model=iris"]).models) == ["iris"]


def test_a_relative_folder_is_shown_as_it_was_given(
    own: Path, monkeypatch: pytest.MonkeyPatch, explain: Explain
) -> None:
    write(own, "model/iris.yaml", MINIMAL_MODEL.format(name="iris") + "  more: 1\n")
    monkeypatch.chdir(own.parent)
    message = explain("model=[iris]", config_dir=Path("my_configs"))
    assert message.startswith("my_configs/model/iris.yaml: models.iris.more\n  unknown key. ")


def test_a_folder_with_an_awkward_name(tmp_path: Path) -> None:
    own = tmp_path / "my, configs [=] \"1\" 'x'"
    write(own, "model/iris.yaml", MINIMAL_MODEL.format(name="iris"))
    assert list(load_config(["model=[iris]"], own).models) == ["iris"]


def test_files_in_subfolders(own: Path) -> None:
    write(own, "model/team/iris.yaml", MINIMAL_MODEL.format(name="iris"))
    assert list(load_config(["model=[team/iris]"], own).models) == ["iris"]


def test_a_model_may_build_on_another_one(own: Path) -> None:
    write(
        own,
        "model/fast.yaml",
        "# @package models\ndefaults: [digits]\ndigits:\n  description: faster\n",
    )
    digits = load_config(["model=[fast]"], own).models["digits"]
    assert digits.description == "faster"
    assert list(digits.versions) == ["1", "2", "3"]


def test_an_own_environment(own: Path) -> None:
    write(
        own,
        "env/staging.yaml",
        "# @package _global_\ndefaults: [production]\nhttp: {docs: true}\n",
    )
    config = load_config(["env=staging"], own)
    assert (config.env, config.http.host, config.http.docs) == ("production", "0.0.0.0", True)


def test_a_mistake_in_an_environment_is_found_there(own: Path, explain: Explain) -> None:
    write(own, "env/staging.yaml", "# @package _global_\ndefaults: [test]\nhttp: {port: x}\n")
    assert explain("env=staging", config_dir=own) == (
        f'{own}/env/staging.yaml: http.port\n  must be a whole number, not "x".\n'
        "Nothing was changed."
    )


def test_an_override_repairs_what_a_file_has_wrong(own: Path) -> None:
    write(own, "env/staging.yaml", "# @package _global_\ndefaults: [test]\nhttp: {port: x}\n")
    assert load_config(["env=staging", "http.port=1"], own).http.port == 1


def test_a_default_that_does_not_exist(own: Path, explain: Explain) -> None:
    write(
        own,
        "env/staging.yaml",
        "# @package _global_\ndefaults: [local, {override /database: postgress}]\n",
    )
    assert explain("env=staging", config_dir=own) == (
        f"{own}/env/staging.yaml: defaults\n"
        '  there is no "postgress" in database. Did you mean "postgres"? '
        "Options: postgres, sqlite.\nNothing was changed."
    )


def test_the_package_line_is_missing(own: Path, explain: Explain) -> None:
    text = MINIMAL_MODEL.format(name="iris").partition("\n")[2]
    write(own, "model/iris.yaml", text)
    message = explain("model=[digits,iris]", config_dir=own)
    assert message == (
        f"{own}/model/iris.yaml: model\n"
        '  the first line of the file must be "# @package models".\nNothing was changed.'
    )
    write(own, "env/mine.yaml", "defaults: [local]\n")
    assert '"# @package _global_"' in explain("env=mine", config_dir=own)


def test_two_files_that_declare_one_model(own: Path, explain: Explain) -> None:
    write(own, "model/twin.yaml", MINIMAL_MODEL.format(name="digits"))
    assert explain("model=[digits,twin]", config_dir=own) == (
        f"{own}/model/twin.yaml: models.digits\n"
        "  configs/model/digits.yaml declares digits as well; select one of them.\n"
        "Nothing was changed."
    )


def test_a_file_that_would_not_be_read(own: Path, explain: Explain) -> None:
    write(own, "model/digits.yaml", MINIMAL_MODEL.format(name="digits"))
    assert explain(config_dir=own) == (
        f"{own}/model/digits.yaml: name\n"
        "  is not read, for there is configs/model/digits.yaml. Give it another name.\n"
        "Nothing was changed."
    )


def test_a_version_without_quotes(own: Path, explain: Explain) -> None:
    text = MINIMAL_MODEL.format(name="iris").replace('"1":', "1.10:")
    write(own, "model/iris.yaml", text)
    assert explain("model=[iris]", config_dir=own).startswith(
        f'{own}/model/iris.yaml: models.iris.versions."1.1"\n'
        '  a name must be text. Write it in quotes, such as "1".\n'
    )


@pytest.mark.parametrize(
    ("content", "place", "text"),
    [
        (b"iris: [1\nb: 2\n", "line 2, column 2", "not valid YAML: expected ',' or ']'"),
        (b"a:\n\tb: 1\n", "line 2, column 1", "not valid YAML: found character"),
        (b"a: 1\nb: 2\na: 3\n", "line 3, column 1", "not valid YAML: found duplicate key a."),
        (b"- 1\n", "content", "must be a mapping of keys to values."),
        (b"\xff\xfe\x00", "content", "cannot be read: UnicodeDecodeError."),
        (b'# @package models\na: "${"\n', "a", "not a valid ${...} interpolation."),
        (b"a: !!python/object/apply:os.getcwd []\n", "line 1, column 4", "not valid YAML: "),
    ],
)
def test_a_file_that_cannot_be_read(
    content: bytes, place: str, text: str, own: Path, explain: Explain
) -> None:
    (own / "model" / "iris.yaml").write_bytes(content)
    message = explain("model=[iris]", config_dir=own)
    assert message.startswith(f"{own}/model/iris.yaml: {place}\n  {text}")


def test_every_broken_file_is_named(own: Path, explain: Explain) -> None:
    for name in ("a", "b"):
        write(own, f"model/{name}.yaml", "a: [1\n")
    message = explain("model=[a,b]", "http.port", config_dir=own)
    assert [line.partition(": ")[0] for line in message.splitlines()[::2]] == [
        "command line",
        f"{own}/model/a.yaml",
        f"{own}/model/b.yaml",
        "Nothing was changed.",
    ]


def test_a_broken_file_that_is_not_selected_does_no_harm(own: Path) -> None:
    write(own, "model/broken.yaml", "a: [1\n")
    write(own, "model/iris.yaml", MINIMAL_MODEL.format(name="iris"))
    assert list(load_config(["model=[iris]"], own).models) == ["iris"]


def test_the_folder_does_not_exist(
    explain: Explain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "missing"
    assert explain(config_dir=missing) == (
        f"command line: --config-dir\n  {missing} is no folder.\nNothing was changed."
    )
    monkeypatch.setenv("SERVE_APP_CONFIG_DIR", str(missing))
    assert explain().startswith("environment: SERVE_APP_CONFIG_DIR\n")
