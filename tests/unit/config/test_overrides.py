from typing import Any

import pytest

from serve_app.config.load import load_config
from serve_app.config.root import Config
from tests.unit.config.conftest import Explain

DIGITS = "models.digits.versions.2"


def value(config: Config, path: str) -> Any:
    found: Any = config
    for part in path.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    return found


@pytest.mark.parametrize(
    ("override", "path", "expected"),
    [
        ("http.port=8080", "http.port", 8080),
        ("++http.port=8080", "http.port", 8080),
        ("http.docs=false", "http.docs", False),
        ("ingress.limits={max_rows: 7}", "ingress.limits.max_rows", 7),
        ("ingress.limits={max_rows: 7}", "ingress.limits.max_dims", 16),
        ("ingress.limits={max_rows: 7,\n  max_dims: 9}", "ingress.limits.max_dims", 9),
        ("env=production", "env", "production"),
        ("log=quiet", "log.level", "WARNING"),
        (f"{DIGITS}.replicas.max=3", f"{DIGITS}.replicas.max", 3),
        ('models.digits.versions."2".replicas.max=3', f"{DIGITS}.replicas.max", 3),
        ("models.digits.versions[2].replicas.max=3", f"{DIGITS}.replicas.max", 3),
        # no file mentions these: they have defaults in the schema only
        (f"{DIGITS}.replicas.target=4", f"{DIGITS}.replicas.target", 4.0),
        (f"+{DIGITS}.batching.max_wait_ms=2", f"{DIGITS}.batching.max_wait_ms", 2.0),
        (f"{DIGITS}.resources.num_gpus=0.5", f"{DIGITS}.resources.num_gpus", 0.5),
        ("models.digits.description='a, b = c'", "models.digits.description", "a, b = c"),
        ("models.digits.description=${env}", "models.digits.description", "local"),
        ('grpc.port=${oc.env:HTTP_PORT,"9001"}', "grpc.port", 9001),
    ],
)
def test_any_value_can_be_overridden(override: str, path: str, expected: Any) -> None:
    assert value(load_config([override]), path) == expected


def test_a_number_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PORT", "8123")
    assert load_config(["http.port=${oc.env:HTTP_PORT}"]).http.port == 8123


def test_weights_as_a_list_and_by_position() -> None:
    both = 'models.digits.release.candidates=[{version:"2",weight:90},{version:"1",weight:10}]'
    candidates = load_config([both]).models["digits"].release.candidates
    assert [(c.version, c.weight) for c in candidates] == [("2", 90), ("1", 10)]
    by_position = ["models.digits.release.candidates.0.weight=80"]
    by_position += ["models.digits.release.candidates[1].weight=20"]
    candidates = load_config([both, *by_position]).models["digits"].release.candidates
    assert [(c.version, c.weight) for c in candidates] == [("2", 80), ("1", 20)]


def test_names_with_dashes_can_be_overridden() -> None:
    config = load_config(["+model=silero-vad", "models.silero-vad.versions.1.replicas.max=2"])
    assert list(config.models) == ["digits", "minilm", "silero-vad"]
    assert config.models["silero-vad"].versions["1"].replicas.max == 2


@pytest.mark.parametrize("key", ['versions."1.0"', "versions.1.0", "versions[1.0]"])
def test_names_with_dots_can_be_overridden(key: str) -> None:
    new = '+models.digits.versions."1.0"={platform: x, predictor: {_target_: a.B}}'
    config = load_config([new, f"models.digits.{key}.replicas.max=5"])
    assert config.models["digits"].versions["1.0"].replicas.max == 5


def test_a_whole_model_can_be_added_on_the_command_line() -> None:
    config = load_config(
        [
            "+models.new.inputs=[{name: x, datatype: FP32, shape: [-1]}]",
            "+models.new.outputs=[{name: y, datatype: FP32, shape: [-1]}]",
            "+models.new.versions.1.platform=test",
            "+models.new.versions.1.predictor._target_=serve_app.predictors.echo.Echo",
            "+models.new.versions.1.predictor.anything=[1,2]",
            '+models.new.release.candidates=[{version: "1", weight: 100}]',
        ]
    )
    assert config.models["new"].versions["1"].predictor.arguments == {"anything": [1, 2]}


def test_a_version_can_be_removed() -> None:
    config = load_config(["~models.digits.versions.3"])
    assert list(config.models["digits"].versions) == ["1", "2"]


def test_removal_may_name_the_value() -> None:
    assert load_config(["~http.port=8000"]).http.port == 8000  # the default of the schema


def test_the_last_override_of_a_key_wins() -> None:
    assert load_config(["http.port=1", "http.port=2"]).http.port == 2


def test_what_was_composed_is_frozen() -> None:
    config = load_config()
    with pytest.raises(ValueError, match="frozen"):
        config.http.port = 1  # type: ignore[misc]  # that it is refused is the point


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("foo", "foo\n  must be written KEY=VALUE, such as http.port=8080."),
        ("", '""\n  must be written KEY=VALUE, such as http.port=8080.'),
        ("=1", '""\n  must be written KEY=VALUE, such as http.port=8080.'),
        ("http..port=1", "http..port\n  cannot be read as a key; write it like http.port."),
        (
            "http.port.x=1",
            "http.port.x\n  http.port is a plain value and has no keys of its own.",
        ),
        (
            "models.digits.release.candidates.5.weight=1",
            "models.digits.release.candidates.5.weight\n"
            "  models.digits.release.candidates has 1 entries, from [0] on.",
        ),
        (
            "+http.port=1",
            "http.port\n  is there already; to change it, leave the + out.",
        ),
        ("~http.prot", "http.prot\n  is not there, so it cannot be removed."),
        ("~http.port=1", "http.port\n  has another value, so it is not removed."),
        (
            "http.port=1,2",
            "http.port\n  takes one value. A list is written [a,b], text with a comma '\"a,b\"'.",
        ),
        (
            "http.host=[",
            "http.host\n  the value cannot be read. Put text with special characters into quotes "
            "of its own, as in 'key=\"a=b\"'.",
        ),
        ("env=nope", 'env\n  there is no "nope". Options: local, production, test.'),
        (
            "model=[digits,mini]",
            'model\n  there is no "mini". Did you mean "minilm"? '
            "Options: digits, magika, minilm, silero-vad.",
        ),
        ("http=8080", "http\n  there is no 8080. Options: default."),
        ("http=null", "http\n  there is no null. Options: default."),
        ("http={port: 1}", "http\n  there is no a mapping. Options: default."),
        ("model=../env/test", 'model\n  there is no "../env/test". '),
        ("model=[]", "models\n  must be given; it has no default."),
        ("~http", "http\n  must be given; it has no default."),
    ],
)
def test_overrides_that_cannot_be(override: str, text: str, explain: Explain) -> None:
    message = explain(override)
    assert message.startswith(f"command line: {text}")
    assert message.endswith("\nNothing was changed.")
