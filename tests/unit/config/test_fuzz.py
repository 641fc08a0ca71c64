"""Whatever stands on the command line: a Config or a ConfigError, never anything else."""

import logging
import os

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.config.load import load_config, to_yaml
from serve_app.config.root import Config
from serve_app.errors import ConfigError

KEYS = st.sampled_from(
    [
        "http.port",
        "http",
        "model",
        "models",
        "env",
        "database.url",
        "hydra",
        "hydra.searchpath",
        "hydra/launcher",
        "models.digits",
        "models.digits.versions",
        "models.digits.versions.2.warm_up",
        "models.digits.versions.2.predictor",
        "models.digits.versions.2.predictor.network.hidden",
        "models.digits.release.candidates",
        "models.digits.release.candidates.0",
        "models.digits.inputs.0.shape",
        "models.minilm.versions.1.metadata",
        "log@http",
    ]
)
SCALARS = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        ["null", "true", "''", '"x"', "${env}", "${", "'${'", "???", "a,b", "glob(*)", "digits"]
    ),
    st.text(max_size=8),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]"),
        st.dictionaries(st.sampled_from(["a", "1", "version", "null"]), inner, max_size=2).map(
            lambda items: "{" + ",".join(f"{k}:{v}" for k, v in items.items()) + "}"
        ),
    ),
    max_leaves=4,
)
JUNK = st.one_of(
    st.text(max_size=30),
    st.builds(
        lambda mode, key, value: f"{mode}{key}={value}",
        st.sampled_from(["", "+", "++", "~"]),
        st.one_of(KEYS, st.text(alphabet="ab.[]\"'@/0-", max_size=12)),
        VALUES,
    ),
    KEYS.map(lambda key: f"~{key}"),
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(JUNK, min_size=1, max_size=3))
def test_junk_gives_a_config_or_a_config_error(overrides: list[str]) -> None:
    environment, handlers = dict(os.environ), list(logging.getLogger().handlers)
    config, message = None, "\nNothing was changed."
    try:
        config = load_config(overrides)
    except ConfigError as error:
        message = str(error)
    assert message.endswith("\nNothing was changed.")
    if config is not None:
        again = Config.model_validate(yaml.safe_load(to_yaml(config)))
        assert to_yaml(again) == to_yaml(config)
    assert dict(os.environ) == environment
    assert logging.getLogger().handlers == handlers
