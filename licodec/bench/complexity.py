"""Multiply-accumulates and parameters, counted on the modules that run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
    """Run `network` on `inputs` and count each convolution, linear layer and GDN in it.

    Additions of biases, activations and normalizing divisions are not multiply-accumulates here;
    GDN counts as the 1x1 convolution over channels that its energy is.
    """
    import torch
    from torch import nn

    macs = 0

    def hook(module: nn.Module, given: tuple[Any, ...], returned: Tensor) -> None:
        nonlocal macs
        if isinstance(module, nn.modules.conv._ConvTransposeNd):
            macs += given[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.modules.conv._ConvNd):
            macs += returned.numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            macs += returned.numel() * module.in_features
        else:
            macs += returned.numel() * returned.shape[1]

    counted = [
        module
        for module in network.modules()
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear) or _is_gdn(module)
    ]
    handles = [module.register_forward_hook(hook) for module in counted]
    try:
        with torch.inference_mode():
            network(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return Complexity(macs, sum(p.numel() for p in network.parameters()))


def _is_gdn(module: nn.Module) -> bool:
    """licodec's GDN and CompressAI's share a name, and no class."""
    return type(module).__name__.startswith("GDN")
