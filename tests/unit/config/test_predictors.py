"""What the model files say about predictors is what the predictors take."""

import pytest

from serve_app.config.catalogue import Catalogue
from serve_app.config.load import load_config
from serve_app.predictors.build import build_predictor

MODELS = Catalogue().groups()["model"]


@pytest.mark.parametrize("name", MODELS)
def test_arguments_are_accepted(name: str) -> None:
    for version in load_config([f"model=[{name}]"]).models[name].versions.values():
        build_predictor(version.predictor).close()
