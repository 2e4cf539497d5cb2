"""Multiply-accumulates and parameters, counted on the modules that run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Complexity:
    """Of one run of a network: multiply-accumulates, and the parameters it holds."""

    macs: int
    parameters: int

    def __add__(self, other: Complexity) -> Complexity:
        return Complexity(self.macs + other.macs, self.parameters + other.parameters)

    def kmac_per_pixel(self, pixels: int) -> float:
        return self.macs / 1000 / pixels


def count(network: nn.Module, *inputs: Tensor) -> Complexity:
    """Run `network` on `inputs` and count the multiply-accumulates of its convolutions and matrix products.

    Additions of biases, activations and normalizing divisions are none; GDN counts as the 1x1 convolution
    over channels that its energy is.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(*inputs)
    return Complexity(counter.get_total_flops() // 2, parameters(network))


def parameters(network: nn.Module) -> int:
    """How many numbers a network holds."""
    return sum(p.numel() for p in network.parameters())
