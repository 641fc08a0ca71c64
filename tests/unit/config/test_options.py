"""Every option file composes, and folders, schemas and fields agree."""

import logging
from pathlib import Path

import pytest
import yaml

from serve_app.config.catalogue import STOCK, Catalogue
from serve_app.config.listener import GrpcConfig, HttpConfig, MetricsConfig
from serve_app.config.load import load_config, to_yaml
from serve_app.config.root import Config

GROUPS = Catalogue().groups()
OPTIONS = [(group, option) for group, options in GROUPS.items() for option in options]


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda value: str(value))
def test_option_composes_and_round_trips(
    group: str, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVE_APP_DATABASE_URL", "postgresql://serve_app@db:5432/serve_app")
    monkeypatch.setenv("SERVE_APP_CLUSTER_ADDRESS", "http://ray-head:8265")
    config = load_config([f"{group}={option}"])
    assert Config.model_validate(yaml.safe_load(to_yaml(config))) == config
    if group == "model":
        assert list(config.models) == [option]


def test_each_group_is_a_field_and_each_field_a_group() -> None:
    fields = {"model" if field == "models" else field for field in Config.model_fields}
    assert set(GROUPS) == fields


def test_default_selection() -> None:
    config = load_config()
    assert config.env == "local"
    assert list(config.models) == ["digits", "minilm"]
    assert list(config.models["digits"].versions) == ["1", "2", "3"]
    weights = [(c.version, c.weight) for c in config.models["digits"].release.candidates]
    assert weights == [("2", 100)]
    for listener in (config.http, config.grpc, config.metrics):
        assert listener.host == "127.0.0.1"


def test_default_files_repeat_the_defaults_of_the_schemas() -> None:
    config = load_config()
    assert config.http == HttpConfig()
    assert config.grpc == GrpcConfig()
    assert config.metrics == MetricsConfig()
    assert config.ingress == type(config.ingress)()
    assert config.cluster == type(config.cluster)()
    assert config.log == type(config.log)()


def test_default_selection_fits_two_cores_with_one_replica_being_replaced() -> None:
    config = load_config()
    each = [v.resources.num_cpus for m in config.models.values() for v in m.versions.values()]
    each += [config.ingress.num_cpus, config.cluster.router_num_cpus]
    assert sum(each) + max(each) < 2.0


def test_every_model_says_what_it_is_and_warms_up() -> None:
    config = load_config([f"model=[{','.join(GROUPS['model'])}]"])
    for model in config.models.values():
        assert model.description
        for version in model.versions.values():
            assert set(version.warm_up) == {spec.name for spec in model.inputs}
            assert {"licence", "source"} <= set(version.metadata)


def test_production_is_reachable_without_docs_and_with_every_hash() -> None:
    config = load_config(["env=production"])
    assert (config.http.host, config.grpc.host, config.metrics.host) == ("0.0.0.0",) * 3
    assert not config.http.docs
    assert config.ingress.replicas == 2
    for model in config.models.values():
        for version in model.versions.values():
            assert version.artifact
            assert version.artifact.sha256


def test_test_environment_does_not_collide_with_a_local_cluster() -> None:
    def ports(config: Config) -> set[int]:
        cluster = config.cluster
        listeners = {config.http.port, config.grpc.port, config.metrics.port}
        return listeners | {cluster.gcs_port, cluster.dashboard_port}

    test, local = load_config(["env=test"]), load_config()
    assert not ports(test) & ports(local)
    assert test.http.body_timeout_s < local.http.body_timeout_s
    assert test.log.access is False


def test_a_choice_on_the_command_line_wins_over_one_of_an_environment() -> None:
    assert load_config(["env=test", "log=json"]).log.access is True


def test_home_is_absolute_in_the_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SERVE_APP_HOME", "some/where")
    config = load_config()
    assert config.database.url == f"sqlite:///{tmp_path}/some/where/serve_app.db"
    artifact = config.models["digits"].versions["2"].artifact
    assert artifact
    assert artifact.uri == f"{tmp_path}/some/where/models/digits/2/model.safetensors"


def test_output_is_deterministic_and_in_the_order_of_the_schemas() -> None:
    text = to_yaml(load_config())
    assert text == to_yaml(load_config())
    assert list(yaml.safe_load(text)) == list(Config.model_fields)
    assert "'2':\n" in text  # a version stays text when it is read back
    assert "&id" not in text


def test_hydra_writes_nothing_and_leaves_logging_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    handlers = list(logging.getLogger().handlers)
    load_config()
    assert list(tmp_path.iterdir()) == []
    assert logging.getLogger().handlers == handlers
    assert capfd.readouterr() == ("", "")


def test_stock_files_lie_beside_the_package() -> None:
    assert (STOCK / "__init__.py").is_file()
