"""The networks of the model `digits`: 8x8 grey levels (0 to 16) in, ten logits out."""

from __future__ import annotations

import torch
from torch import nn

PIXELS = 64
WHITE = 16.0
CLASSES = 10


class Mlp(nn.Module):
    """A multilayer perceptron.

    Args:
        hidden: width of both hidden layers.
    """

    def __init__(self, hidden: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(PIXELS, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, CLASSES),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Grey levels [n, 64] -> logits [n, 10]."""
        logits: torch.Tensor = self.layers(x / WHITE)
        return logits


class Cnn(nn.Module):
    """A small convolutional network.

    Args:
        channels: of the first convolution; the second has twice as many.
    """

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, 2 * channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.25),
            nn.Linear(2 * channels * 16, CLASSES),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Grey levels [n, 64] -> logits [n, 10]."""
        logits: torch.Tensor = self.layers((x / WHITE).reshape(-1, 1, 8, 8))
        return logits
