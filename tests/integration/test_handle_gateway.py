"""The contract of the Gateway port holds over handles on a real cluster, too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deployments.options import REPLICA_ENVIRONMENT
from tests.contract.gateway_contract import MODELS
from tests.integration.cluster import ROOT, Cluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(280)]

PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")


def write_models(folder: Path, journals: Path) -> None:
    """The models of the contract as config files, one replica each."""
    folder.mkdir(parents=True)
    for name, settings in MODELS.items():
        inputs = [each.model_dump(mode="json") for each in settings.inputs]
        predictor = settings.predictor(journals / name).model_dump(mode="json", by_alias=True)
        version = {
            "platform": "test",
            "predictor": predictor,
            "resources": {"num_cpus": 0.05},
            "batching": {"slots_per_replica": 16},
        }
        model = {
            "inputs": inputs,
            "outputs": inputs,
            "versions": {"1": version},
            "release": {"candidates": [{"version": "1", "weight": 100}]},
        }
        text = "# @package models\n" + yaml.safe_dump({name: model})
        (folder / f"{name}.yaml").write_text(text)


def test_the_contract_holds_over_handles(tmp_path: Path) -> None:
    journals = tmp_path / "journals"
    journals.mkdir()
    write_models(tmp_path / "configs" / "model", journals)
    cluster = Cluster(
        tmp_path / "home",
        overrides=[f"model=[{','.join(MODELS)}]", "cluster.num_cpus=4"],
        variables={
            "SERVE_APP_CONFIG_DIR": str(tmp_path / "configs"),
            "PYTHONPATH": str(ROOT),  # for the predictor of the contract
        },
    )
    cluster.run("up")
    try:
        done = subprocess.run(
            [*PYTEST, "tests/integration/handle_contract.py"],
            cwd=ROOT,
            env={
                **os.environ,
                **REPLICA_ENVIRONMENT,
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": (cluster.home / "ray-token").read_text(),
                "CONTRACT_ADDRESS": f"127.0.0.1:{cluster.ports[3]}",
                "CONTRACT_JOURNALS": str(journals),
            },
            capture_output=True,
            text=True,
            timeout=200,
        )
    finally:
        cluster.run("down")
    assert done.returncode == 0, done.stdout + done.stderr
