"""What is checked before anything is touched: ports and local artifacts."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from pathlib import Path

from deployments import node as ray_node
from deployments.node import LocalNode
from deployments.terminal import done, say, waiting
from serve_app.artifacts.names import local_path, scheme_of
from serve_app.artifacts.policy import FetchPolicy
from serve_app.config.root import Config
from serve_app.errors import ArtifactError, ClusterError, ConfigError
from serve_app.examples.prepare import prepare_examples


def check_ports(config: Config) -> None:
    """Raises ClusterError when a port that we need is taken, naming who has it."""
    problem = next(iter(port_problems(config)), None)
    if problem is not None:
        raise ClusterError(problem)


def port_problems(config: Config, keys: Collection[str] | None = None) -> Iterator[str]:
    """A line for each port that is taken, of those with these keys or of all."""
    ports = {
        "http.port": config.http.port,
        "cluster.gcs_port": config.cluster.gcs_port,
        "cluster.dashboard_port": config.cluster.dashboard_port,
    }
    if config.grpc.enabled:
        ports["grpc.port"] = config.grpc.port
    if config.metrics.enabled:
        ports["metrics.port"] = config.metrics.port
    for key, port in ports.items():
        owner = ray_node.port_owner(port) if keys is None or key in keys else None
        if owner is not None:
            other = port + 80 if port < 65_000 else port - 80
            yield (
                f"Port {port} is taken by {owner}. Stop it, or choose another: "
                f"serve-app up {key}={other}"
            )


def setting_problems(config: Config, node: LocalNode) -> Iterator[str]:
    """A line for each setting with which the config wants another Ray than the one that runs."""
    for key, value in ray_node.settings(config).items():
        if node.settings.get(key) != value:
            yield (
                f"cluster.{key}\n  Ray was started with {node.settings.get(key)}, not {value}. "
                "To change it: serve-app down, then up."
            )


def make_examples(config: Config, home: Path) -> None:
    """Trains the example models that the config selects, where they are missing or out of date."""
    if not any(path.is_relative_to(examples(home)) for _, path in _local_artifacts(config)):
        return
    began = time.monotonic()
    with waiting("Training the example model digits"):
        prepared = prepare_examples(home, report=lambda line: None)
    if any(each.trained for each in prepared):
        say(done("Training the example model digits", began))
        for each in prepared:
            say(f"  digits {each.version}  accuracy {each.accuracy:.3f} on the held-out quarter")


def check_artifacts(config: Config, home: Path, *, examples_too: bool = True) -> None:
    """Raises ConfigError naming every local artifact that does not exist."""
    problems = []
    for where, path in _local_artifacts(config):
        if not path.exists() and (examples_too or not path.is_relative_to(examples(home))):
            problems.append(f"{where}\n  no such file or folder: {path}")
    if problems:
        raise ConfigError("\n".join([*problems, "Nothing was changed."]))


def examples(home: Path) -> Path:
    """Where the example models lie."""
    return home / "models" / "digits"


def _local_artifacts(config: Config) -> list[tuple[str, Path]]:
    """Key and path of each artifact that is a local file or folder.

    Raises:
        ConfigError: a URI cannot be used.
    """
    found = []
    for name, model in config.models.items():
        for version, settings in model.versions.items():
            if settings.artifact is None:
                continue
            uri, where = settings.artifact.uri, f"models.{name}.versions.{version}.artifact.uri"
            try:
                scheme = scheme_of(uri, FetchPolicy())
                if scheme in ("file", "package"):
                    found.append((where, local_path(uri, scheme, FetchPolicy())))
            except ArtifactError as error:
                raise ConfigError(f"{where}\n  {error}\nNothing was changed.") from error
    return found
