"""From the config of a predictor to the predictor."""

from __future__ import annotations

from serve_app.config.model import PredictorConfig
from serve_app.predictors.predictor import Predictor
from serve_app.predictors.target import construct, import_class


def build_predictor(config: PredictorConfig) -> Predictor:
    """Imports the configured class and constructs it with the configured arguments.

    Raises:
        PredictorError: the class is missing or no Predictor, or an argument is not allowed.
    """
    # import_class makes sure that the class is concrete, which is what mypy cannot see here.
    cls = import_class(config.target, Predictor)  # type: ignore[type-abstract]
    return construct(cls, config.arguments)
