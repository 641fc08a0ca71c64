"""The custom runtime of MLServer for the digits network, as its documentation shows one.

docs.seldon.ai/mlserver/user-guide/custom
"""
# mypy: disable-error-code="import-not-found, misc"

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.servers.digits_mlp import load


class Digits(MLModel):
    """The model, as MLServer wants it."""

    async def load(self) -> bool:
        """Loads the network, once per worker."""
        torch.set_num_threads(1)
        self.network = load(Path(self.settings.parameters.uri))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Computes the rows of one request, or of those that came together."""
        rows: Any = NumpyCodec.decode_input(payload.inputs[0])
        with torch.inference_mode():
            logits = self.network(torch.from_numpy(rows)).numpy()
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[NumpyCodec.encode_output("logits", logits)],
        )
