"""A network that fails, for versions that must be rolled back."""

from __future__ import annotations

import torch

from serve_app.examples.digits import Mlp


class FaultyMlp(Mlp):
    """Raises on images whose grey levels sum up to 1 more than a multiple of 3: a third of them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool((x.sum(1) % 3 == 1).any()):
            raise RuntimeError("a faulty network met an image that it fails on")
        return super().forward(x)
