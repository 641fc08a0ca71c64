"""The network of digits version 2, built again: the baselines need nothing of the product."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

WHITE = 16.0


class DigitsMlp(nn.Module):
    """Grey levels [n, 64] -> logits [n, 10], as wide and as deep as the weights say."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        weights = [tensor for name, tensor in sorted(state.items()) if name.endswith(".weight")]
        steps: list[nn.Module] = []
        for weight in weights:
            steps += [nn.Linear(weight.shape[1], weight.shape[0]), nn.ReLU()]
        self.layers = nn.Sequential(*steps[:-1])
        self.load_state_dict(state)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes a batch."""
        logits: torch.Tensor = self.layers(x / WHITE)
        return logits


def load(weights: Path) -> DigitsMlp:
    """The trained network, ready to compute."""
    return DigitsMlp(load_file(weights)).eval().requires_grad_(False)
