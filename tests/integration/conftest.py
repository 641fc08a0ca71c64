from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.cluster import Cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two ingresses, digits, minilm and echo: shared by every test that only uses a cluster."""
    target = Cluster(
        tmp_path_factory.mktemp("home"),
        overrides=[
            "model=[digits,minilm,echo]",
            "ingress.replicas=2",
            "cluster.num_cpus=4",
            "log.level=INFO",
            "log.access=true",
        ],
    )
    target.run("up")
    yield target
    target.run("down")
    assert not target.listening()
    assert not target.processes()
