"""Linear layers whose weights lie in memory as oneDNN wants them.

`nn.Linear` on a CPU puts the weights in order at every call. oneDNN can be given them in order;
torch's compiler does that with frozen weights, through two operators that are used here without it.
They are not public, so a network is to be tried out with them before it is used.
"""

from __future__ import annotations

from typing import Any

import torch


class PackedLinear(torch.nn.Module):
    """Computes what a layer computes."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach())
        self._bias = None if layer.bias is None else layer.bias.detach()
        self._compute: Any = torch.ops.mkldnn._linear_pointwise.default

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The layer's output."""
        result: torch.Tensor = self._compute(inputs, self._packed, self._bias, "none", [], "")
        return result


class Packing:
    """Replaces the linear layers of a network, all or none, and can put them back."""

    def __init__(self, network: torch.nn.Module) -> None:
        layers = [
            (parent, name, layer)
            for parent in network.modules()
            for name, layer in parent.named_children()
            if type(layer) is torch.nn.Linear and layer.weight.dtype == torch.float32
        ]
        packed = [PackedLinear(layer) for _, _, layer in layers]
        self._replaced = layers
        for (parent, name, _), layer in zip(layers, packed, strict=True):
            setattr(parent, name, layer)

    def undo(self) -> None:
        """Puts the layers back."""
        for parent, name, layer in self._replaced:
            setattr(parent, name, layer)
