"""Each kind of mistake, with the exact words that answer it."""

from pathlib import Path

import pytest

from serve_app.config.listener import HttpConfig
from serve_app.config.load import load_config
from tests.unit.config.conftest import MINIMAL_MODEL, Explain

REPLICAS = "models.digits.versions.2.replicas"


def test_a_version_that_is_not_declared(own: Path, explain: Explain) -> None:
    text = MINIMAL_MODEL.format(name="iris").replace('version: "1"', 'version: "7"')
    (own / "model" / "iris.yaml").write_text(text)
    assert explain("model=[iris]", config_dir=own) == (
        f"{own}/model/iris.yaml: models.iris.release.candidates[0].version\n"
        '  "7" is not a version of this model. Declared: 1.\n'
        "Nothing was changed."
    )


@pytest.mark.parametrize(
    ("override", "text"),
    [
        (
            "models.digits.release.candidates=[{version:'7',weight:100}]",
            'models.digits.release.candidates[0].version\n  "7" is not a version of this model. '
            "Declared: 1, 2, 3.",
        ),
        (
            "models.digits.release.candidates=[{version:'1',weight:90}]",
            "models.digits.release\n  the weights of all candidates must sum up to 100, not 90.",
        ),
        (
            "models.digits.release.candidates=[{version:'1',weight:50},{version:'1',weight:50}]",
            "models.digits.release\n  each version may be a candidate once.",
        ),
        (
            "models.digits.release.candidates=[{version:2,weight:100}]",
            "models.digits.release.candidates[0].version\n"
            '  must be text, not 2. Write "2" in quotes.',
        ),
        (
            "models.digits.release.candidates=[{version:'1',weight:100},{version:'2',weight:-1}]",
            "models.digits.release.candidates[1].weight\n  must be at least 0, not -1.",
        ),
        (
            "models.digits.release.labels.canary='7'",
            'models.digits.release.labels.canary\n  "7" is not a version of this model. '
            "Declared: 1, 2, 3.",
        ),
        (
            "models.digits.release.labels.1='2'",
            'models.digits.release.labels.1\n  "1" is a version: a label needs a name of its own.',
        ),
        (
            "models.digits.release.fallback='7'",
            'models.digits.release.fallback\n  "7" is not a version of this model. ',
        ),
        (
            "models.digits.release.mirror=[{version:'7',percent:5}]",
            'models.digits.release.mirror[0].version\n  "7" is not a version of this model. ',
        ),
        (
            "models.digits.release.rules=[{match:{tenant:a},version:beta}]",
            'models.digits.release.rules[0].version\n  "beta" is neither a version nor a label. '
            "Known: 1, 2, 3.",
        ),
        (
            "models.digits.release.rules=[{match:{},version:'1'}]",
            "models.digits.release.rules[0].match\n  name at least one header, query parameter "
            "or tenant.",
        ),
        (
            "models.digits.release.sticky={by:header}",
            "models.digits.release.sticky\n  name is needed by header and cookie, and by nothing "
            "else.",
        ),
        (
            "models.digits.release.outcomes={kind:label,output:classes}",
            'models.digits.release.outcomes.output\n  "classes" is not an output of this model. '
            "Declared: logits.",
        ),
        (
            "models.digits.release.compare.output=classes",
            'models.digits.release.compare.output\n  "classes" is not an output of this model. ',
        ),
        (
            "models.digits.release.candidates=[]",
            "models.digits.release.candidates\n  must not be empty.",
        ),
        (
            "http.max_buffered_bytes=1048576",
            "http\n  max_buffered_bytes must not be below max_body_bytes.",
        ),
        (
            "http.prot=1",
            'http.prot\n  unknown key. Did you mean "port"? '
            f"Allowed: {', '.join(HttpConfig.model_fields)}.",
        ),
        (
            "modle=[digits]",
            'modle\n  unknown key. Did you mean "model"? Allowed: '
            "cluster, database, env, grpc, http, ingress, log, metrics, model, models.",
        ),
        (
            f"{REPLICAS}.maximum=3",
            f'{REPLICAS}.maximum\n  unknown key. Did you mean "max"? '
            "Allowed: min, max, target, upscale_delay_s, downscale_delay_s, "
            "max_surge_percent.",
        ),
        ("http.port=abc", 'http.port\n  must be a whole number, not "abc".'),
        ("http.port=80.5", "http.port\n  must be a whole number, not 80.5."),
        ("http.port=null", "http.port\n  must be a whole number, not null."),
        ("http.port=[1]", "http.port\n  must be a whole number, not a list."),
        ("http.port=true", "http.port\n  must be a number, not true."),
        ("http.port=70000", "http.port\n  must be at most 65535, not 70000."),
        ("http.port=0", "http.port\n  must be at least 1, not 0."),
        ("http.idle_timeout_s=0", "http.idle_timeout_s\n  must be more than 0, not 0."),
        ("http.idle_timeout_s=inf", "http.idle_timeout_s\n  must be a finite number, not inf."),
        ("http.idle_timeout_s=nan", "http.idle_timeout_s\n  must be a finite number, not nan."),
        ("http.docs=7", "http.docs\n  must be true or false, not 7."),
        ("http.host=1", 'http.host\n  must be text, not 1. Write "1" in quotes.'),
        ("ingress.limits=3", "ingress.limits\n  must be a mapping, not 3."),
        (
            "log.level=WARN",
            'log.level\n  must not be "WARN". Did you mean "WARNING"? '
            "Allowed: DEBUG, INFO, WARNING, ERROR.",
        ),
        ("models.digits.inputs=x", 'models.digits.inputs\n  must be a list, not "x".'),
        (
            "models.digits.inputs.0.datatype=FP31",
            "models.digits.inputs[0].datatype\n  must be one of BOOL, UINT8, UINT16, UINT32, "
            "UINT64, INT8, INT16, INT32, INT64, FP16, BF16, FP32, FP64, BYTES.",
        ),
        (
            "models.digits.inputs.0.shape=[-1,0]",
            "models.digits.inputs[0].shape\n  each dimension must be positive, or -1 for any size.",
        ),
        (
            "models.minilm.outputs.1.name=embedding",
            "models.minilm.outputs\n  each name may stand once; repeated: embedding.",
        ),
        (f"{REPLICAS}.min=2", f"{REPLICAS}\n  max (1) must not be below min (2)."),
        (
            "models.digits.versions.2.warm_up.y=[1]",
            'models.digits.versions.2.warm_up.y\n  "y" is not an input of digits. Declared: x.',
        ),
        (
            "models.digits.versions.2.predictor._target_=Mlp",
            "models.digits.versions.2.predictor._target_\n"
            '  must be an import path such as package.module.Class, not "Mlp".',
        ),
        (
            "models.minilm.versions.1.artifact.sha256=abc",
            "models.minilm.versions.1.artifact.sha256\n"
            '  must be 64 hexadecimal digits in lower case, not "abc".',
        ),
        (
            "models.minilm.versions.1.artifact.uri=''",
            "models.minilm.versions.1.artifact.uri\n  must not be empty.",
        ),
        ("~models.digits.release", "models.digits.release\n  must be given; it has no default."),
        (
            "+models.digits.versions.4.platform=x",
            "models.digits.versions.4.predictor\n  must be given; it has no default.",
        ),
        (
            "+models.'a b'.description=x",
            'models."a b"\n  must be 1 to 128 letters, digits, dots, dashes or underscores, '
            'not "a b".',
        ),
        ("grpc.port=8000", "grpc.port\n  8000 is also http.port."),
        (
            "http.host=${nowhere}",
            'http.host\n  "${nowhere}" points to a key that does not exist.',
        ),
        ("http.host=${http.host}", 'http.host\n  "${http.host}" cannot be resolved.'),
        (
            "http.host=${oc.env:NOT_SET_ANYWHERE}",
            "http.host\n  environment variable NOT_SET_ANYWHERE is not set.",
        ),
        ("http.host='???'", "http.host\n  must be given."),
        ("http.host=${repeat:1,-1}", 'http.host\n  "${repeat:1,-1}" cannot be resolved.'),
        ("hydra.run.dir=x", "hydra\n  unknown key. "),
    ],
)
def test_a_mistake_on_the_command_line(override: str, text: str, explain: Explain) -> None:
    message = explain(override)
    assert message.startswith(f"command line: {text}")
    assert message.endswith("\nNothing was changed.")


def test_the_longest_value_is_not_quoted_whole(explain: Explain) -> None:
    assert f'not "{"a" * 60}…".' in explain(f"http.port={'a' * 5000}")


def test_all_mistakes_are_named_at_once_each_with_its_place(own: Path, explain: Explain) -> None:
    text = MINIMAL_MODEL.format(name="iris").replace('version: "1"', 'version: "7"')
    text = text.replace(
        "platform: test", "platform: test\n      batch: 3\n      replicas: {min: -1}"
    )
    (own / "model" / "iris.yaml").write_text(text)
    message = explain("model=[iris]", "http.prot=1", "grpc.port=x", "env=nope", config_dir=own)
    iris = f"{own}/model/iris.yaml: models.iris"
    assert [line for line in message.splitlines() if not line.startswith("  ")] == [
        "command line: env",
        "command line: http.prot",
        "command line: grpc.port",
        f"{iris}.versions.1.replicas.min",
        f"{iris}.versions.1.batch",
        f"{iris}.release.candidates[0].version",
        "Nothing was changed.",
    ]


def test_a_mistake_that_another_one_hides_is_not_made_up(explain: Explain) -> None:
    """Without max, min 2 would be above its default; nobody wrote that."""
    assert explain(f"{REPLICAS}.max=x", f"{REPLICAS}.min=2") == (
        f'command line: {REPLICAS}.max\n  must be a whole number, not "x".\nNothing was changed.'
    )


def test_true_as_a_number_is_named_beside_other_mistakes(explain: Explain) -> None:
    message = explain("http.prot=1", "grpc.port=true")
    assert "grpc.port\n  must be a number, not true." in message


def test_a_missing_variable_is_named_with_its_file(explain: Explain) -> None:
    assert explain("database=postgres", "cluster=existing") == (
        "configs/cluster/existing.yaml: cluster.address\n"
        "  environment variable SERVE_APP_CLUSTER_ADDRESS is not set.\n"
        "configs/database/postgres.yaml: database.url\n"
        "  environment variable SERVE_APP_DATABASE_URL is not set.\n"
        "Nothing was changed."
    )


def test_production_needs_hashes_and_says_how_to_get_them(explain: Explain) -> None:
    message = explain("env=production", "model=[digits]")
    for version in "123":
        assert (
            f"configs/model/digits.yaml: models.digits.versions.{version}.artifact.sha256\n"
            "  env=production needs the sha256 of every artifact. It is printed by: "
            "python -m serve_app.artifacts hash "
        ) in message


def test_a_hash_may_be_given_on_the_command_line() -> None:
    hashes = [f"models.digits.versions.{version}.artifact.sha256={'0' * 64}" for version in "123"]
    assert load_config(["env=production", "model=[digits]", *hashes]).env == "production"


def test_a_mistake_is_not_retried_into_a_half_read_config(explain: Explain) -> None:
    """The next call starts afresh."""
    explain("http.prot=1")
    assert load_config().http.port == 8000
